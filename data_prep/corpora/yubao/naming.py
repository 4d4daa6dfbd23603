"""Recordings that are named by a city and a number, as ``download_video.js`` of the paper saves them.

``CITY_0007.mp4`` is the seventh video on the page of a site. The name of the file does not identify the site:
files of two sites of a city have the same names. The folder identifies it, if it has the name or the id of a
site.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.corpora.yubao.metadata import Sentence
from data_prep.corpora.yubao.sites import same_name

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r".+_(?P<number>[0-9]{4})")
_NAMES_SHOWN = 3


class NumberedNames:
    """Finds the utterance of a numbered file by the site of its folder.

    Args:
        sentences: wanted sentences by site id, then by number.
    """

    def __init__(self, sentences: Mapping[str, Mapping[int, Sentence]]) -> None:
        self._by_folder: dict[str, Mapping[int, Sentence]] = {}
        for site_id, of_site in sentences.items():
            # The seventh video is sentence 7 only if no earlier sentence is missing on the page.
            if of_site and sorted(of_site) == list(range(1, len(of_site) + 1)):
                site = next(iter(of_site.values())).site
                self._by_folder[same_name(site.name)] = self._by_folder[site_id] = of_site
        self._found: list[Path] = []

    def utterance_id(self, path: Path) -> str | None:
        """Id of the utterance in a file; None if name and folder do not identify it."""
        match = _NUMBERED.fullmatch(path.stem)
        of_site = self._by_folder.get(same_name(path.parent.name), {})
        if match is None or (sentence := of_site.get(int(match["number"]))) is None:
            return None
        self._found.append(path)
        return sentence.utterance_id

    def report(self) -> None:
        """Log the assignment, because the numbers alone cannot be checked."""
        if self._found:
            logger.warning(
                "%d recordings are named by number (%s): each is taken for the sentence of this number at "
                "the site of its folder; listen to some, or rename them to their utterance ids",
                len(self._found),
                _shown(self._found),
            )

    @staticmethod
    def advice(others: Sequence[Path]) -> str:
        """Advice about numbered files that could not be identified; empty if there are none."""
        numbered = [path for path in others if _NUMBERED.fullmatch(path.stem)]
        if not numbered:
            return ""
        return (
            f"\n{len(numbered)} recordings are named by number ({_shown(numbered)}), which does not say of "
            "which site: rename them to their utterance ids (15J15mb01yf0001.mp4), or, for a site with all "
            "sentences from 0001 on in the metadata, put them into a folder with the name of the site"
        )


def _shown(paths: Sequence[Path]) -> str:
    names = [f"{path.parent.name}/{path.name}" for path in paths[:_NAMES_SHOWN]]
    return ", ".join(names) + (", ..." if len(paths) > _NAMES_SHOWN else "")
