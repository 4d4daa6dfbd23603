"""The command ``layers``: retrieval, recognition by early exit and linear probes for every layer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from torch import Tensor

from retrieval.depth.figure import layer_figure
from retrieval.depth.probe_tasks import characters_of, facts_of
from retrieval.depth.probes import ProbeScore, check_installed
from retrieval.depth.results import (
    LayerStudy,
    Rate,
    TapResult,
    describe_tasks,
    fill,
    read_study,
    study_tables,
    write_study,
)
from retrieval.depth.study import (
    STEPS,
    Frames,
    LayersConfig,
    Probes,
    Tap,
    embed_taps,
    kept,
    recall_of,
    taps_of,
)
from retrieval.embedding.acoustic import MfccEmbedder
from retrieval.embedding.cuts import EmbedConfig, embed_cuts
from retrieval.embedding.embedder import EmbedderKind
from retrieval.embedding.store import EmbeddingStore, EmbeddingWriter, fingerprint, is_complete
from retrieval.figures.style import save_png
from retrieval.results.weights import weights_of
from retrieval.similarity.scores import ScoreKind
from zipformer.alignment import align_cuts
from zipformer.console import print_tables
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.data.dataset import read_dataset
from zipformer.data.tokenizer import TOKENS_FILE, Tokenizer
from zipformer.decoding.methods import DecodeConfig, methods, methods_of
from zipformer.decoding.recognise import decode_exits
from zipformer.device import choose_device
from zipformer.encoder.taps import layer_places
from zipformer.errors import UserError
from zipformer.heads.ctc import CtcHead
from zipformer.model import MIN_FRAMES, AsrModel
from zipformer.model_dir import CONFIG_FILE, WEIGHTS_FILE, check_model_files
from zipformer.results_place import writable_results
from zipformer.scoring import align_all, score
from zipformer.typed_json import MalformedResultError

logger = logging.getLogger(__name__)


def main(config: LayersConfig) -> None:
    """Run the study, print and write the tables."""
    with writable_results(Path(config.model_dir)):
        result = Study(config).run()
    print_tables(study_tables(result))
    print(f"tables and figure: {config.folder}")


class Study:
    """The steps of a study; each stores its results."""

    def __init__(self, config: LayersConfig) -> None:
        self.config = config
        self.model_dir, self.data_dir = Path(config.model_dir), Path(config.data_dir)
        check_model_files(self.model_dir)
        if "probes" in config.steps:
            check_installed()
        self.manifest = find_manifest(self.data_dir, config.split)
        self.cuts = read_cuts(self.manifest)
        self.dataset = read_dataset(self.data_dir, config.split, config.dataset)
        self.device = choose_device(config.device)
        self.model = AsrModel.from_pretrained(self.model_dir).to(self.device).eval()
        self.methods = usable_methods(self.model, config.methods) if "exits" in config.steps else []
        places = layer_places(self.model.config.encoder)
        self.taps = taps_of(
            [(place.stack, place.dim, place.downsampling_factor) for place in places],
            self.model.config.encoder.output_dim,
        )
        self.sources = [self.model_dir / CONFIG_FILE, self.model_dir / WEIGHTS_FILE]
        data = {"data": self.dataset.digest}
        self.origin = fingerprint(self.sources, data | {"storage": config.storage})
        self.content = fingerprint([*self.sources, self.model_dir / TOKENS_FILE], data)
        self.weights = weights_of(self.model_dir)

    def run(self) -> LayerStudy:
        """Do the chosen steps, add matching steps of earlier runs, write the study and return it."""
        config = self.config
        steps = config.steps
        self.dataset.claim(self.model_dir)
        if "retrieval" in steps or "probes" in steps:
            identities = {tap.name: self.identity(tap) for tap in self.taps}
            embed_taps(
                self.cuts,
                self.encode,
                self.taps,
                config,
                identities,
                minimum_frames=MIN_FRAMES,
                margin=self.model.margin,
                weights=self.weights,
                dataset=self.dataset,
            )
        recalls = self.recalls() if "retrieval" in steps else {}
        rates = self.error_rates() if "exits" in steps else {}
        probes = self.probes() if "probes" in steps else None
        scores = self.scores(probes) if probes else {}
        taps = []
        for tap in self.taps:
            recall = recalls.get(tap.name)
            taps.append(
                TapResult(
                    tap,
                    estimate_of(recall),
                    recall["chance"] if recall else None,
                    rates.get(tap.layer, {}) if tap.kind == "layer" else {},
                    scores.get(tap.name, {}),
                )
            )
        methods = [method for of_layer in rates.values() for method in of_layer]
        tasks, missing = describe_tasks(probes.tasks, probes.not_identifiable) if probes else ({}, {})
        study = LayerStudy(
            config.model_dir,
            config.split,
            taps,
            estimate_of(recalls.get("mfcc")),
            estimate_of(recalls.get("mfcc-dtw")),
            tasks,
            missing,
            weights=None if self.weights is None else [self.weights],
            data=[self.dataset.digest],
            groups=recalls["output"]["groups"] if recalls else None,
            single_site_groups=recalls["output"]["single_site_groups"] if recalls else None,
            made_from={step: self.made_from(step, methods) for step in steps},
        )
        if len(study.made_from) < len(STEPS):
            study = fill(study, self.before(), self.made_from)
        write_study(study, config)
        save_png(layer_figure(study), config.folder / "layers.png")
        return study

    def before(self) -> LayerStudy | None:
        """The study of an earlier run; None if there is none or it cannot be read."""
        try:
            return read_study(self.config.folder)
        except MalformedResultError as error:
            logger.warning("nothing is taken over from the earlier study: %s", error)
            return None

    def made_from(self, step: str, methods: Sequence[str]) -> str:
        """Fingerprint of all inputs of the results of a step; ``methods`` are those of the exits."""
        config = self.config
        settings: dict[str, object] = {"step": step, "model and cuts": self.content}
        if step != "probes":
            settings["intervals"] = "Student"
        if step == "probes":
            settings |= {"storage": config.storage, "probes": asdict(config.probes)}
        if step == "retrieval":
            settings |= {"resamples": config.resamples, "seed": config.seed}
            settings |= {"storage": config.storage, "level": config.level, "duplicates": config.duplicates}
            settings["mfcc"] = asdict(config.mfcc)
        if step == "exits" and "beam" in methods:
            settings["beam"] = config.beam
        return fingerprint([], settings)

    def identity(self, tap: Tap) -> str:
        """Fingerprint of the embeddings of a tap; for a layer, equal to that of fangyan embed."""
        if tap.kind != "layer":
            return fingerprint([], {"origin": self.origin, "tap": tap.name})
        return fingerprint(
            self.sources, self.embedding(layer=tap.layer).options | {"data": self.dataset.digest}
        )

    def embedding(self, **settings: Any) -> EmbedConfig:
        """Settings with which fangyan embed makes the same embeddings."""
        config = self.config
        return EmbedConfig(
            config.model_dir,
            config.data_dir,
            config.split,
            dataset=config.dataset,
            storage=config.storage,
            **settings,
        )

    @torch.inference_mode()
    def encode(self, features: Tensor, lengths: Tensor) -> Frames:
        """The frames of all taps."""
        outputs = self.model.encode_layers(features.to(self.device), lengths.to(self.device))
        read = {"layer": outputs.layer, "stack": outputs.stack, "output": outputs.exit}
        return {
            tap.name: read[tap.kind](tap.stack if tap.kind == "stack" else tap.layer) for tap in self.taps
        }

    def recalls(self) -> dict[str, dict[str, Any]]:
        """Recall@1 of every tap, and of MFCCs with SeqSim and with dynamic time warping."""
        config = self.config
        sound = config.folder / "embeddings-mfcc"
        embedding = self.embedding(embedder=EmbedderKind.mfcc, mfcc=config.mfcc)
        identity = fingerprint([], embedding.options | {"data": self.dataset.digest})
        if not is_complete(sound, identity):
            embedder = MfccEmbedder(config.mfcc)
            writer = EmbeddingWriter(
                sound,
                dimension=embedder.dimension,
                dtype=config.storage,
                embedder="mfcc",
                fingerprint=identity,
                dataset=self.dataset.record(),
            )
            with writer:
                embed_cuts(self.cuts, embedder, writer, batch_seconds=config.batch_seconds)
        asked = {"mfcc": (sound, ScoreKind.seqsim), "mfcc-dtw": (sound, ScoreKind.dtw)}
        asked |= {tap.name: (tap.store(config), ScoreKind.seqsim) for tap in self.taps}
        return {
            name: self.recall(name, EmbeddingStore(directory), score)
            for name, (directory, score) in asked.items()
        }

    def recall(self, name: str, store: EmbeddingStore, score: ScoreKind) -> dict[str, Any]:
        """Recall@1 of one store with one score."""
        config = self.config

        def make() -> dict[str, Any]:
            logger.info("retrieval with %s", name)
            return recall_of(store, config, self.device, score)

        made_from = {
            "embeddings": store.description["fingerprint"],
            "level": config.level,
            "duplicates": config.duplicates,
            "resamples": config.resamples,
            "seed": config.seed,
            "intervals": "Student",
        }
        found: dict[str, Any] = kept(
            config.folder / "retrieval" / f"{name}.json", fingerprint([], made_from), make
        )
        return found

    def error_rates(self) -> dict[int, dict[str, Rate]]:
        """CER of an exit after every layer, by layer and method."""
        config = self.config
        decoding = DecodeConfig(
            config.model_dir,
            config.data_dir,
            config.split,
            dataset=config.dataset,
            beam=config.beam,
            device=config.device,
        )
        rates: dict[int, dict[str, Rate]] = {}
        exits = decode_exits(decoding, self.methods, config.folder / "exits")
        for (method, layer), transcripts in exits.items():
            rows = score(align_all(transcripts))
            (overall,) = (row for row in rows if row.level == "overall")
            if overall.cer is None:
                raise UserError(
                    f"{self.manifest} holds no text to recognise; leave out the step: steps=[retrieval]"
                )
            rates.setdefault(layer, {})[method] = Rate(overall.cer, overall.low, overall.high)
        return rates

    def probes(self) -> Probes:
        """The tasks, with the times of characters if the model has a CTC head."""
        facts = facts_of(self.cuts)
        if self.model.find(CtcHead) is None:
            return Probes(facts, None, self.config.probes, no_spans="the model has no CTC head to align with")
        aligned = kept(
            self.config.folder / "characters.json",
            fingerprint([self.model_dir / TOKENS_FILE], {"origin": self.origin}),
            self.align,
        )
        return Probes(facts, characters_of(aligned), self.config.probes)

    def align(self) -> dict[str, list[tuple[str, int, int]]]:
        """Characters of each utterance with their encoder frames, for utterances that can be aligned."""
        utterances = align_cuts(
            self.model,
            Tokenizer.load(self.model_dir),
            CutSet.from_cuts(self.cuts),
            aligner="ctc",
            device=self.device,
        )
        return {
            utterance.id: [(span.text, span.start, span.stop) for span in utterance.words]
            for utterance in utterances
        }

    def scores(self, probes: Probes) -> dict[str, dict[str, ProbeScore]]:
        """Scores of the probes by tap and task."""
        return {
            name: {row["task"]: ProbeScore(**row) for row in rows}
            for name, rows in probes.of_taps(self.taps, self.config).items()
        }


def usable_methods(model: AsrModel, wanted: Sequence[str]) -> list[str]:
    """Decoding methods whose head the model has.

    Raises:
        UserError: the model has none of the heads, or a method is not known.
    """
    if unknown := [method for method in wanted if method not in methods]:
        raise UserError(
            f"methods={wanted}: {unknown[0]} is not known; choose some of {', '.join(sorted(methods))}"
        )
    there = methods_of(model)
    usable = [method for method in wanted if method in there]
    missing = ", ".join(method for method in wanted if method not in there)
    if not usable:
        raise UserError(
            f"the model has no head for {missing}; set methods=[{','.join(there)}], or leave out the early "
            "exits: steps=[retrieval,probes]"
        )
    if missing:
        logger.info("the model has no head for %s", missing)
    return usable


def estimate_of(recall: Mapping[str, Any] | None) -> Rate | None:
    """Recall@1 of a store as the study records it."""
    return Rate(recall["recall_at_1"], recall["low"], recall["high"]) if recall else None
