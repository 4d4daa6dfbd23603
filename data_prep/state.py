"""The finished stages of a data directory, and its configuration (``prepare.json``)."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from zipformer.data.manifest import PREPARATION_FILE
from zipformer.errors import UserError
from zipformer.files import file_sha256, files_below, write_json
from zipformer.typed_json import read_json

STAGES = ("manifests", "checks", "fbank", "tokens", "cuts")


class PreparationState:
    """The finished stages of a data directory, in a file that every finished stage rewrites.

    Attributes:
        stages: report of each finished stage, by name.
    """

    def __init__(self, directory: Path, fingerprint: Mapping[str, Any]) -> None:
        """Read the state of a directory, or start a new one.

        Args:
            directory: data directory; need not exist.
            fingerprint: all settings that affect the prepared data, by dotted key.

        Raises:
            UserError: the directory was prepared with other settings (the message names the keys), or it was
                moved before it was complete.
        """
        self._directory = directory
        self._begun = str(directory)
        self._fingerprint = dict(fingerprint)
        self.stages: dict[str, dict[str, Any]] = {}
        file = directory / PREPARATION_FILE
        before = read_json(file, "prepare")
        if before is not None:
            if before["stages"] or _has_audio(directory):
                _require_same(directory, before["settings"], self._fingerprint)
                self.stages = before["stages"]
            begun = before.get("directory", str(directory))
            if set(STAGES) <= set(self.stages):
                self._begun = begun  # the path in the manifests
            if begun != str(directory) and self.stages and not set(STAGES) <= set(self.stages):
                raise UserError(
                    f"{directory} was begun as {begun} and moved before it was complete, and what is there "
                    "names its audio by the old place: move it back to finish it, or delete it"
                )
        self._write()

    def finish(self, stage: str, report: Mapping[str, Any]) -> None:
        """Record that a stage is complete."""
        self.stages[stage] = dict(report)
        self._write()

    def forget(self) -> None:
        """Record that no stage is complete, so that the next run starts again with any settings."""
        self.stages = {}
        self._write()

    def _write(self) -> None:
        content = {
            "directory": self._begun,
            "settings": self._fingerprint,
            "stages": self.stages,
        }
        write_json(self._directory / PREPARATION_FILE, content)


def fingerprint(config: object, prefix: str = "") -> dict[str, Any]:
    """Flatten a config dataclass to values by dotted key, e.g. ``{"checks.max_duration": 30.0, ...}``."""
    flat: dict[str, Any] = {}
    values = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    assert isinstance(values, Mapping)
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(fingerprint(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value.value if isinstance(value, Enum) else value
    return flat


def file_digest(path: Path) -> str:
    """Hash of the content of a file, or of the names and sizes of all files in a folder; or ``missing``."""
    if path.is_dir():
        names = "".join(f"{file.relative_to(path)}\t{file.stat().st_size}\n" for file in files_below(path))
        return hashlib.blake2b(names.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    if not path.is_file():
        return "missing"
    try:
        return file_sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct its permissions") from error


def _has_audio(directory: Path) -> bool:
    audio = directory / "audio"
    return audio.is_dir() and any(audio.iterdir())


def _require_same(directory: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        lines = "\n".join(f"  {key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in differing)
        raise UserError(
            f"{directory} was prepared with other settings:\n{lines}\nSet them back to resume there, choose "
            f"another data_dir, or delete {directory} to prepare it anew"
        )
