"""The part of the report about a layer study, for the template ``_layers.html.j2``."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.depth.figure import layer_figure
from retrieval.depth.results import LayerStudy, read_study
from retrieval.figures.style import svg_data_uri
from retrieval.results.weights import Digests


@dataclass(frozen=True)
class LayersSection:
    """The variable ``layers`` of the template.

    Attributes:
        study: results of the study.
        figure: address of the figure, for an ``<img>``.
        sounds: recall@1 of MFCCs in per cent, by score; empty if not measured.
        chances: accuracy of the most frequent class in per cent, by task.
    """

    study: LayerStudy
    figure: str
    sounds: dict[str, float]
    chances: dict[str, float]

    @property
    def weights(self) -> Digests:
        """Digests of the weights behind the study (:mod:`retrieval.results.weights`)."""
        return self.study.weights

    @property
    def data(self) -> Digests:
        """Digests of the data behind the study."""
        return self.study.data


def layers_section(folder: Path) -> LayersSection | None:
    """The section for a folder of fangyan layers; None if there is no study in it.

    Raises:
        MalformedResultError: the results are damaged.
    """
    study = read_study(folder)
    if study is None:
        return None
    chances = {task: score.chance for result in study.taps for task, score in result.probes.items()}
    sounds = {"SeqSim": study.sound, "DTW": study.sound_in_order}
    return LayersSection(
        study,
        svg_data_uri(layer_figure(study)),
        {name: recall.value for name, recall in sounds.items() if recall is not None},
        chances,
    )
