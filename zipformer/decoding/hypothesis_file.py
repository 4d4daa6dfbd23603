"""Hypotheses on disk: they survive a run that is stopped."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from lhotse import SupervisionSegment

from zipformer.files import write_text
from zipformer.scoring import Transcript
from zipformer.scoring.files import CER_FILE
from zipformer.typed_json import json_lines, read_row

HYPOTHESES_FILE, DECODE_FILE = "hypotheses.jsonl", "decode.json"


class HypothesisFile:
    """Hypotheses on disk, one JSON object a line, appended batch by batch.

    Beside the file lies ``decode.json`` with the settings that made it. Opening it with the same settings
    continues it; with other ones (another model, other cuts, another beam) it starts again, because a test
    set recognised in part by one model and in part by another has no error rate.

    Args:
        directory: folder of the results; created where needed.
        settings: everything that the hypotheses depend on, as text.
    """

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / HYPOTHESES_FILE
        self.done: dict[str, Transcript] = {}
        settings_path, text = directory / DECODE_FILE, json.dumps(settings, indent=1) + "\n"
        if settings_path.is_file() and settings_path.read_text(encoding="utf-8") == text:
            self.done = self._read()
        else:
            # First away with the old: a kill in between must not leave them with the new settings. The error
            # rates go too, which would not belong to the new hypotheses.
            for path in (self.path, directory / CER_FILE):
                path.unlink(missing_ok=True)
            write_text(settings_path, text)

    def _read(self) -> dict[str, Transcript]:
        """Whole lines of the file; a last line that a kill has cut short is removed from it."""
        if not self.path.is_file():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.path.write_bytes(whole)
        transcripts = (Transcript(**json.loads(line)) for line in whole.decode("utf-8").split("\n") if line)
        return {transcript.id: transcript for transcript in transcripts}

    def append(self, transcripts: Iterable[Transcript]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for transcript in transcripts:
                file.write(json.dumps(asdict(transcript), ensure_ascii=False) + "\n")
                self.done[transcript.id] = transcript


def read_hypotheses(path: Path) -> list[Transcript]:
    """The transcripts of a finished file, in the order of the file.

    Raises:
        MalformedResultError: a line without the fields of a transcript.
    """
    return [
        read_row(Transcript, line, path, f"line {number}", "decode")
        for number, line in json_lines(path, "decode")
    ]


def transcript_of(
    cut_id: str, supervision: SupervisionSegment, hypothesis: str, reference: str
) -> Transcript:
    """A hypothesis with the labels of its utterance and what it is scored against: a field's text."""
    custom = supervision.custom or {}
    return Transcript(
        id=cut_id,
        dialect=supervision.language,
        subdialect=custom.get("subdialect"),
        site=custom.get("site"),
        sentence_id=custom.get("sentence_id"),
        reference=(supervision.text or "") if reference == "text" else str(custom[reference]),
        hypothesis=hypothesis,
        speaker=supervision.speaker,
        duration=supervision.duration,
        part=custom.get("part"),
    )
