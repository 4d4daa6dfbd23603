import json

import pytest
from result_files import (
    GROUPS,
    TRAINED,
    recall_table,
    write_decoding,
    write_json,
    write_metrics,
    write_results,
)

from retrieval.protocol.reading import read_recall
from retrieval.protocol.tables import write_recall_json
from retrieval.results.decodings import read_decodings
from retrieval.results.training import read_metrics
from zipformer.model_dir import trained_groups
from zipformer.typed_json import MalformedResultError


def test_decodings_round_trip(tmp_path):
    for method in ("greedy", "beam"):
        write_decoding(tmp_path / f"decode-test-{method}", method)
    write_decoding(tmp_path / "decode-valid-ctc", "ctc")
    beam, greedy = read_decodings(tmp_path, "test")
    assert (beam.method, greedy.method) == ("beam", "greedy")
    assert [row.name for row in greedy.level("dialect")] == list(GROUPS)
    assert greedy.level("overall")[0].cer == pytest.approx(100 * 12 / 1234)
    assert len(greedy.hypotheses) == 28
    assert greedy.hypotheses[0].subdialect is None
    assert max(row.count for row in greedy.confusions) == 60
    assert {row.kind for row in greedy.confusions} == {"substitution", "deletion", "insertion"}


def test_decodings_of_a_split_with_a_longer_name_are_not_taken_for_this_one(tmp_path):
    write_decoding(tmp_path / "decode-test-greedy", "greedy")
    write_decoding(tmp_path / "decode-test-far-beam", "beam", split="test-far")
    assert [result.method for result in read_decodings(tmp_path, "test")] == ["greedy"]
    assert [result.method for result in read_decodings(tmp_path, "test-far")] == ["beam"]


def test_nothing_there(tmp_path):
    assert read_decodings(tmp_path, "test") == []
    assert read_recall(tmp_path / "recall.json") is None
    assert read_metrics(tmp_path / "metrics.jsonl") is None
    assert trained_groups(tmp_path) is None


def test_recall_round_trip(tmp_path):
    model_dir = write_results(tmp_path, sites=2, sentences=6)
    result = read_recall(model_dir / "results/data/retrieval-test/recall.json")
    assert result is not None
    assert result.embedder == "zipformer"
    assert result.table.groups == list(GROUPS)
    assert result.table.held_out_groups == ["gan"]
    assert len(result.table.pairs) == 42
    assert len(result.table.within) == 7
    assert trained_groups(model_dir) == TRAINED


def test_groups_of_one_site_are_recorded(tmp_path):
    found = {}
    for sites in (1, 2):
        path = tmp_path / f"recall-{sites}.json"
        table = recall_table(tmp_path / f"store-{sites}", sites=sites, sentences=4, noise=1.0)
        write_recall_json(path, table, {})
        found[sites] = read_recall(path).table
    assert found[1].single_site_groups == list(GROUPS)
    assert found[1].resampled.startswith("sentences; sites cannot vary")
    assert (found[2].single_site_groups, found[2].resampled) == ([], "sentences and sites")
    content = json.loads(path.read_text())
    content.pop("single_site_groups")  # as earlier versions wrote it
    write_json(path, content)
    earlier = read_recall(path).table
    assert (earlier.single_site_groups, earlier.pairs) == (None, found[2].pairs)
    assert earlier.resampled == "sentences, and over sites where a group has several"
    write_json(path, content | {"single_site_groups": "cmn"})
    with pytest.raises(MalformedResultError, match="single_site_groups must be a list of names, found 'cmn'"):
        read_recall(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("rows"), "rows must be list, found nothing"),
        (lambda content: content["rows"][3].pop("cer"), "rows, row 4 has no cer"),
        (
            lambda content: content["rows"][0].update(deletions="two"),
            r"rows, row 1: deletions must be .*found 'two'",
        ),
        (lambda content: content["rows"].__setitem__(2, 7), "rows, row 3 is not an object"),
        (lambda content: content.update(scoring="x"), "scoring must be a known convention, found 'x'"),
    ],
)
def test_malformed_error_rates_are_named(tmp_path, change, message):
    write_decoding(tmp_path / "decode-test-greedy", "greedy")
    path = tmp_path / "decode-test-greedy" / "cer.json"
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)
    with pytest.raises(MalformedResultError, match=rf"cer\.json: {message}.*fangyan decode"):
        read_decodings(tmp_path, "test")


def test_malformed_files_are_named(tmp_path):
    model_dir = write_results(tmp_path, sites=1, sentences=4, methods=("greedy",))
    decoding = model_dir / "results/data/decode-test-greedy"
    (decoding / "confusions.csv").write_text("dialect,kind,reference,hypothesis,count\n,deletion,x,,many\n")
    with pytest.raises(MalformedResultError, match=r"confusions\.csv: line 2: count must be a number"):
        read_decodings(model_dir / "results" / "data", "test")
    (decoding / "confusions.csv").unlink()
    with (decoding / "hypotheses.jsonl").open("a") as file:
        file.write("{]\n")
    with pytest.raises(MalformedResultError, match=r"hypotheses\.jsonl: line 29: not JSON"):
        read_decodings(model_dir / "results" / "data", "test")
    recall = model_dir / "results/data/retrieval-test/recall.json"
    content = json.loads(recall.read_text())
    content["pairs"][5]["source"] = "zzz"
    write_json(recall, content)
    with pytest.raises(MalformedResultError, match=r"pair zzz, .* is not among the groups"):
        read_recall(recall)
    recall.write_text("[]")
    with pytest.raises(MalformedResultError, match=r"recall\.json: not a JSON object.*fangyan retrieve"):
        read_recall(recall)
    write_json(model_dir / "provenance.json", {"trained_dialects": "cmn"})
    with pytest.raises(MalformedResultError, match="trained_dialects must be a list of names, found 'cmn'"):
        trained_groups(model_dir)


def train_line(step, **values):
    return json.dumps({"kind": "train", "step": step, "elapsed_seconds": 60.0 * step} | values) + "\n"


def test_metrics_series_and_minutes(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl")
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert metrics is not None
    steps, values = metrics.series("ctc")
    assert (steps[0], steps[-1], len(values)) == (10, 600, 60)
    assert metrics.series("attention") == ([], [])
    assert metrics.validated_dialects() == ["overall", *TRAINED]
    minutes, cer = metrics.cer_against_minutes("yue")
    assert minutes == pytest.approx([2.5, 5.0, 7.5, 10.0, 12.5, 15.0])
    assert cer == sorted(cer, reverse=True)


def test_steps_done_again_after_a_resume_count_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = [train_line(step, ctc=1.0) for step in (10, 20, 30)]
    again = [train_line(step, ctc=2.0) for step in (20, 30, 40)]
    path.write_text("".join(first + again) + '{"kind": "train", "st')  # the last line is being written
    metrics = read_metrics(path)
    assert metrics is not None
    assert metrics.series("ctc") == ([10, 20, 30, 40], [1.0, 2.0, 2.0, 2.0])


def test_values_that_are_not_finite_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        train_line(1, ctc=float("nan")) + train_line(2, ctc=3.0) + train_line(3, ctc=float("inf"))
    )
    metrics = read_metrics(path)
    assert metrics is not None
    assert metrics.series("ctc") == ([2], [3.0])


def test_ctc_alone_and_skipped_steps_are_no_errors(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"kind": "valid", "step": 1, "cer_ctc": {"overall": 90.0}}', '{"kind": "skipped", "step": 2}']
    path.write_text(train_line(1) + "".join(line + "\n" for line in lines))
    metrics = read_metrics(path)
    assert metrics is not None
    assert metrics.cer_against_minutes("overall") == ([], [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "test", "step": 3}', "line 2: needs kind train or valid, and a step"),
        ('{"kind": "valid", "step": 3}', "line 2: cer_ctc must be dict, found nothing"),
        ('{"kind": "valid", "step": 3, "cer": 7}', "line 2: cer must be dict, found 7"),
        ('{"kind": "train", "step": 3}', "line 2: elapsed_seconds must be float, found nothing"),
        ("nonsense", "line 2: not JSON"),
    ],
)
def test_malformed_metrics_are_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(train_line(1) + line + "\n")
    with pytest.raises(MalformedResultError, match=message):
        read_metrics(path)
