"""The command ``retrieve``: recall between all ordered pairs of groups of a split, with intervals and tests.

It opens embeddings and sites (:mod:`~retrieval.protocol.sites`), scores every query
(:mod:`~retrieval.protocol.recall`), computes rates with intervals from the ranks
(:mod:`~retrieval.protocol.estimates`, :mod:`~retrieval.protocol.tables`), and writes and prints the results.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from retrieval.embedding.corrections import Correction
from retrieval.embedding.store import EmbeddingStore
from retrieval.figures.style import save_png
from retrieval.protocol.challenge_sets import ChallengeSet, read_challenge
from retrieval.protocol.figure import recall_heat_map
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import MIN_COMMON, Duplicates, Level, labels_of_dialects, sites_of
from retrieval.protocol.tables import RecallTable, tabulate, write_tables
from retrieval.protocol.views import retrieval_views
from retrieval.results.naming import result_folder
from retrieval.results.weights import Sieve, check_same_recordings, weights_behind
from retrieval.similarity.scores import ScoreKind
from zipformer.console import print_tables
from zipformer.data.dataset import choose_dataset
from zipformer.device import choose_device
from zipformer.errors import UserError
from zipformer.files import replacing_folder
from zipformer.model_dir import check_trained, trained_groups
from zipformer.results_place import writable_results


@dataclass
class RetrieveConfig:
    """Settings of one retrieval.

    Attributes:
        model_dir: model directory with the embeddings in ``results``; the tables go there too.
        split: split of the embedded data set.
        dataset: name of the data set; null = the only data set with results.
        embedder: name of the embedder, as in the folder of fangyan embed: ``zipformer``, ``mfcc``, ...
        layer: layer of the embedder, as in fangyan embed; null = its output.
        level: rows of the matrix: dialect groups, or varieties (subdialects).
        groups: groups to compare, in this order; empty = all.
        trained: dialect groups that the encoder was trained on; null = those in ``provenance.json``.
        within: also pair the sites of one group with each other; reported separately.
        min_common: smallest number of sentences that two sites must share. In smaller pools chance is too
            high; with 1 every answer is right.
        score: similarity of two utterances (:mod:`retrieval.similarity.scores`); ``seqsim`` is the protocol.
        correction: correction of the frames before they are compared
            (:mod:`retrieval.embedding.corrections`); ``none`` is the protocol.
        challenge: challenge set (JSON file of fangyan challenge) that restricts the queries and their rivals;
            null = all sentences with all rivals.
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        half_precision: compute SeqSim on a GPU with products of float16, in one kernel: faster, with errors
            of the scores up to 1e-4. Other scores have no such kernel.
        resamples: number of bootstrap resamples; with more resamples the ends of the intervals vary less.
        confidence: confidence level of the intervals.
        permutations: number of permutations of the tests against chance; the smallest p is 1/(1 + this). 0 =
            no tests.
        seed: random seed of the bootstrap and of the permutations.
    """

    model_dir: str
    split: str = "test"
    dataset: str | None = None
    embedder: str = "zipformer"
    layer: int | None = None
    level: Level = Level.group
    groups: list[str] = field(default_factory=list)
    trained: list[str] | None = None
    within: bool = True
    min_common: int = MIN_COMMON
    score: ScoreKind = ScoreKind.seqsim
    correction: Correction = Correction.none
    challenge: str | None = None
    duplicates: Duplicates = Duplicates.error
    device: str = "auto"
    half_precision: bool = False
    resamples: int = 1000
    confidence: float = 0.95
    permutations: int = 1999
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise UserError(f"resamples={self.resamples} gives no interval; take 1000")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence={self.confidence} must be between 0 and 1")
        if self.min_common < 1:
            raise UserError(f"min_common={self.min_common} leaves pools without a sentence; give 2 or more")
        if self.permutations < 0:
            raise UserError(f"permutations={self.permutations} is negative; give 0 for no test")
        if self.half_precision and self.score is not ScoreKind.seqsim:
            raise UserError(
                f"half_precision applies to SeqSim; set half_precision=false for score={self.score.value}"
            )


def main(config: RetrieveConfig) -> None:
    with writable_results(Path(config.model_dir)):
        table, directory = run(config)
    print_tables(retrieval_views(table, config.confidence))
    print(f"tables and figure: {directory}")


def run(config: RetrieveConfig) -> tuple[RecallTable, Path]:
    """Run all queries and write the results.

    Returns:
        Table of rates, and folder of the results.

    Raises:
        UserError: there are no embeddings, they were computed with other weights than the model directory has
            now or do not fit the challenge set, or see :func:`sites_of` and :func:`retrieve`.
    """
    model_dir = Path(config.model_dir)
    dataset = choose_dataset(model_dir, config.dataset)
    store = open_store(model_dir, config.split, dataset, embedder=config.embedder, layer=config.layer)
    sites = sites_of(store, level=config.level, duplicates=config.duplicates, groups=config.groups)
    challenge = None if config.challenge is None else read_challenge(config.challenge)
    if challenge is not None:
        check_challenge(challenge, store)
    check_trained(config.trained, (utterance.dialect for utterance in store), model_dir)

    outcome = retrieve(
        store,
        sites,
        within_groups=config.within,
        min_common=config.min_common,
        score=config.score,
        correction=config.correction,
        challenge=challenge,
        permutations=config.permutations,
        seed=config.seed,
        device=choose_device(config.device),
        half_precision=config.half_precision,
    )
    trained = config.trained if config.trained is not None else trained_groups(model_dir)
    table = tabulate(
        outcome,
        trained_groups=None if trained is None else labels_of_dialects(store, trained, config.level),
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    header: dict[str, object] = {
        "split": config.split,
        "dataset": store.description.get("dataset"),
        "model_dir": str(model_dir),
        "embedder": config.embedder,
        "challenge": challenge.name if challenge else None,
        "challenge_fingerprint": challenge.fingerprint if challenge else None,
        "challenge_drawn_for": challenge.about.get("drawn_for") if challenge else None,
        "settings": asdict(config),
        "embeddings": store.description,
    }
    directory = result_folder(
        model_dir,
        "retrieval",
        config.split,
        dataset=dataset,
        embedder=config.embedder,
        layer=config.layer,
        score=config.score.value,
        correction=config.correction.value,
        challenge=challenge.name if challenge else None,
    )
    with replacing_folder(directory) as path:
        write_tables(path, table, outcome, header)
        save_png(recall_heat_map(table, confidence=config.confidence), path / "recall.png")
    return table, directory


def open_store(
    model_dir: Path, split: str, dataset: str, *, embedder: str = "zipformer", layer: int | None = None
) -> EmbeddingStore:
    """Open the embeddings of a data set in a model directory.

    Raises:
        UserError: there are no embeddings, or they were computed with other weights than the directory has
            now.
    """
    directory = result_folder(model_dir, "embeddings", split, dataset=dataset, embedder=embedder, layer=layer)
    store = EmbeddingStore(directory)
    Sieve(model_dir).require(weights_behind([store.description]), directory, "fangyan embed")
    return store


def check_challenge(challenge: ChallengeSet, store: EmbeddingStore) -> None:
    """Check that a challenge set was made from the embedded data set.

    Raises:
        UserError: it was made from another data set.
    """
    made_of = (f"the challenge set {challenge.name}", challenge.about.get("dataset"))
    check_same_recordings([(str(store.directory), store.description.get("dataset")), made_of])
