"""Checks of manifests that no table of a folder can express: segments of a recording, translations."""

from pathlib import Path

import pytest
from lhotse import Recording, SupervisionSegment
from sound_folder import write_noise
from split_checks import check

from data_prep.audio.probe import AudioProbe, probe_audio
from zipformer.errors import UserError


def recording_of_one_second(folder: Path) -> tuple[Recording, AudioProbe]:
    write_noise(folder / "one.wav", seconds=1.0)
    recording = Recording.from_file(folder / "one.wav", recording_id="one")
    return recording, probe_audio(recording)


def segment(start: float, duration: float, number: int = 0) -> SupervisionSegment:
    return SupervisionSegment(f"s{number}", "one", start, duration, text="好，", language="wuu")


def test_segments_of_a_recording(tmp_path: Path) -> None:
    kinds, left = check([recording_of_one_second(tmp_path)], [segment(0, 0.5, 0), segment(0.5, 0.505, 1)])
    assert kinds == []  # five milliseconds too long is rounding
    assert [(cut.start, cut.duration, cut.supervisions[0].start) for cut in left] == [
        (0, 0.5, 0),
        (0.5, 0.5, 0),
    ]
    assert left[0].supervisions[0].text == "好"
    assert left[0].supervisions[0].custom == {"raw_text": "好，"}


def test_translations_are_normalised_like_transcripts(tmp_path: Path) -> None:
    spoken = segment(0, 0.5, 0)
    spoken.custom = {"translation": "好，對。"}
    _, left = check([recording_of_one_second(tmp_path)], [spoken])
    custom = {"raw_text": "好，", "translation": "好對", "raw_translation": "好，對。"}
    assert left[0].supervisions[0].custom == custom


@pytest.mark.parametrize(("start", "duration"), [(0.5, 0.6), (-0.1, 0.5), (2.0, 0.5)])
def test_segment_beyond_its_recording(start: float, duration: float, tmp_path: Path) -> None:
    kinds, left = check([recording_of_one_second(tmp_path)], [segment(start, duration)])
    assert (kinds, left) == (["beyond_audio"], [])


def test_file_that_changed_after_its_manifest_was_made(tmp_path: Path) -> None:
    recording, _ = recording_of_one_second(tmp_path)
    write_noise(tmp_path / "one.wav", seconds=0.9)
    kinds, left = check([(recording, probe_audio(recording))], [segment(0, 1)])
    assert (kinds, left) == (["audio_mismatch"], [])


def test_recording_without_transcript(tmp_path: Path) -> None:
    kinds, left = check([recording_of_one_second(tmp_path)], [])
    assert (kinds, left) == (["no_transcript"], [])


def test_supervision_without_recording_is_the_fault_of_the_corpus() -> None:
    with pytest.raises(UserError, match="supervision s0 belongs to recording one"):
        check([], [segment(0, 1)])
