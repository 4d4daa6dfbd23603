"""What a model directory says of the training of its model, also where its files are damaged."""

import json
from pathlib import Path

import pytest

from zipformer.model_dir import dialects_of, trained_groups, trained_translation_field
from zipformer.typed_json import MalformedResultError


def test_dialects_are_those_of_the_training_and_of_its_start(tmp_path: Path) -> None:
    assert trained_groups(tmp_path) is None
    assert dialects_of(tmp_path) == []
    record = {"trained_hours": {"yue": 1.5, "nan": 0.2}, "known_dialects": ["cmn", "yue"]}
    (tmp_path / "checkpoint.json").write_text(json.dumps(record))
    assert dialects_of(tmp_path) == ["cmn", "nan", "yue"]
    (tmp_path / "provenance.json").write_text(json.dumps({"trained_dialects": ["wuu"]}))
    assert dialects_of(tmp_path) == trained_groups(tmp_path) == ["wuu"]


def test_the_field_that_was_translated_to(tmp_path: Path) -> None:
    assert trained_translation_field(tmp_path) == "translation"
    content = {"training": {"config": {"translation_field": "english"}}}
    (tmp_path / "provenance.json").write_text(json.dumps(content))
    assert trained_translation_field(tmp_path) == "english"


@pytest.mark.parametrize("read", [dialects_of, trained_groups, trained_translation_field])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, read: object) -> None:
    (tmp_path / "provenance.json").write_text('{"trained_dialects": [')
    with pytest.raises(MalformedResultError, match=r"provenance\.json: not JSON .* fangyan average"):
        read(tmp_path)  # type: ignore[operator]
