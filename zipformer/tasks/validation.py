"""Character error rate by dialect, on a small fixed part of the validation split."""

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lhotse import CutSet
from lhotse.cut import Cut

from zipformer.data.batches import EVALUATION_SECONDS, evaluation_batches
from zipformer.data.cuts import read_cuts
from zipformer.data.manifest import check_feature_files
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding import ctc_greedy_search, greedy_search
from zipformer.decoding.methods import Search
from zipformer.distributed import World
from zipformer.heads.ctc import CtcHead
from zipformer.heads.transducer import TransducerHead
from zipformer.model import AsrModel
from zipformer.scoring import ErrorCounts, align
from zipformer.scoring.token_coverage import coverage_of

logger = logging.getLogger(__name__)


@dataclass
class ValidationConfig:
    """Recognition of a part of the validation split during training."""

    split: str = "valid"  # split to recognise
    interval: int = 1000  # steps between validations; 0 = never
    utterances_per_dialect: int = 50  # largest number of utterances, a fixed random choice
    max_duration: float = EVALUATION_SECONDS  # seconds of audio in a batch
    ctc: bool = False  # also report greedy decoding of the CTC head


class Validator:
    """Decodes the same utterances at each call, of all dialects or of the given ones.

    With several processes, each decodes a share of the batches, and all get the same result.
    """

    def __init__(
        self,
        data_dir: Path,
        tokenizer: Tokenizer,
        config: ValidationConfig,
        world: World,
        *,
        dialects: Collection[str] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.world = world
        cuts = choose_utterances(
            read_cuts(data_dir / f"cuts_{config.split}.jsonl.gz"), config.utterances_per_dialect
        )
        if dialects is not None:
            cuts = CutSet.from_cuts(cut for cut in cuts if cut.supervisions[0].language in dialects)
        check_feature_files((cut.features.storage_path for cut in cuts if cut.has_features), data_dir)
        self.cuts = cuts
        texts = (cut.supervisions[0] for cut in self.cuts)
        coverage = coverage_of(((text.text or "", text.language) for text in texts), tokenizer)
        if world.is_main and (warning := coverage.warning(f"the split {config.split}")):
            logger.warning("%s", warning)

    @torch.inference_mode()
    def __call__(
        self, model: AsrModel, *, ctc_only: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, dict[str, float]] | None:
        """CER in per cent as {"cer": {"overall": .., dialect: ..}}, and also "cer_ctc" if configured.

        With ``ctc_only``, for the time when the other heads are not trained, there is only "cer_ctc".
        ``stop`` is called before every batch; if it returns True in any process, the result is None in all.
        The model is in evaluation mode during the call.
        """
        searches: dict[str, Search] = {}
        transducer, ctc = model.find(TransducerHead), model.find(CtcHead)
        if transducer is not None and not ctc_only:
            searches["cer"] = partial(greedy_search, transducer)
        if ctc is not None:
            by_ctc = partial(ctc_greedy_search, ctc)
            if transducer is None and not ctc_only:
                searches["cer"] = by_ctc
            if self.config.ctc or ctc_only:
                searches["cer_ctc"] = by_ctc
        counts: dict[str, dict[str, ErrorCounts]] = {name: defaultdict(ErrorCounts) for name in searches}
        was_training = model.training
        model.eval()
        batches = evaluation_batches(self.cuts, margin=model.margin, max_duration=self.config.max_duration)
        stopped = False
        for index, batch in enumerate(batches):
            if stopped := stop():
                break
            if index % self.world.size != self.world.rank:
                continue
            frames, lengths = model.encode(
                batch.features.to(self.world.device), batch.lengths.to(self.world.device)
            )
            for name, search in searches.items():
                hypotheses = search(frames, lengths)
                for dialect, text, ids in zip(batch.dialects, batch.texts, hypotheses, strict=True):
                    errors = align(text, self.tokenizer.decode(ids)).counts
                    counts[name][dialect] += errors
                    counts[name]["overall"] += errors
        model.train(was_training)
        if any(self.world.gather(stopped)):
            return None
        return {name: _rates(self.world.gather(dict(table))) for name, table in counts.items()}


def _rates(tables: list[dict[str, ErrorCounts]]) -> dict[str, float]:
    """Error rates by dialect from the counts of all processes; "overall" first.

    A dialect without a character in its references has no rate.
    """
    total: dict[str, ErrorCounts] = defaultdict(ErrorCounts)
    for table in tables:
        for dialect, counts in table.items():
            total[dialect] += counts
    names = ["overall", *sorted(total.keys() - {"overall"})]
    rates = {name: total[name].rate for name in names}
    return {name: rate for name, rate in rates.items() if rate is not None}


def choose_utterances(cuts: CutSet, per_dialect: int, seed: int = 0) -> CutSet:
    """Choose at most ``per_dialect`` utterances of every dialect; the choice depends only on the manifest."""
    by_dialect: dict[str, list[Cut]] = defaultdict(list)
    for cut in cuts:
        by_dialect[cut.supervisions[0].language or "unknown"].append(cut)
    rng = random.Random(seed)
    chosen = []
    for _, candidates in sorted(by_dialect.items()):
        chosen += candidates if len(candidates) <= per_dialect else rng.sample(candidates, per_dialect)
    return CutSet.from_cuts(chosen)
