"""Every script explains its settings, and answers a wrong call with one line that says what to change."""

import runpy
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from tiny_corpus import write_tiny_corpus

from fangyan.commands import COMMANDS, CONF_DIR
from fangyan.help import CommandHelp, _rows

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NAMES = sorted(COMMANDS)
FURTHER = {"prepare": ["corpus=folder", "corpus=mini", "corpus=yubao"], "sweep": ["sweep=supervision"]}
MODEL = ["config.json", "model.safetensors", "tokens.model", "tokens.txt"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a user may name by mistake, and a small corpus without sentences."""
    root = tmp_path_factory.mktemp("places")
    found = {name: root / name for name in ("data", "empty", "damaged", "file", "none", "new")}
    for name in ("data", "empty", "damaged"):
        found[name].mkdir()
    for name in MODEL:
        (found["damaged"] / name).write_text("{")
    found["file"].write_text("x")
    write_tiny_corpus(found["data"], utterances=3)
    return found


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def run(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = SCRIPTS / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")


def answer(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys) -> str:
    """The one line that the script ends with."""
    with pytest.raises(SystemExit) as end:
        run(name, *arguments, monkeypatch=monkeypatch)
    message = end.value.code
    assert isinstance(message, str)
    assert message.startswith("error: ")
    assert "\n" not in message
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "Error executing job" not in shown
    return message


@pytest.mark.parametrize("name", NAMES)
def test_help_gives_each_setting_with_value_and_meaning(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for choice in [[], *([group] for group in FURTHER.get(name, []))]:
        run(name, "--help", *choice, monkeypatch=monkeypatch)
        text = capsys.readouterr().out
        content = CommandHelp(name, name, CONF_DIR).compose(choice)
        for key, value, meaning in _rows(content):
            assert meaning, f"{key} of {name} has no meaning: comment it in its dataclass"
            assert not meaning.startswith(("of ", "that is ")), f"{key} of {name}: say what the value is"
            assert f"  {key}={value}\n" in text if value is not None else f"  {key}:\n" in text
            assert " ".join(meaning.split()[:3]) in " ".join(text.split())
    assert f"scripts/{name}.py " in text.partition("usage:")[2].partition("\n")[2]  # an example
    assert text.count("sweep=NAME") == (name == "sweep")  # groups of other scripts are not offered
    assert text.count("experiment=NAME") == (name == "train")
    assert text.count("corpus=NAME") == (name == "prepare")


def test_help_shows_the_values_of_the_rest_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run("train", "--help", "experiment=mini", "seed=7", monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    experiment = yaml.safe_load((SCRIPTS.parent / "conf/experiment/mini.yaml").read_text(encoding="utf-8"))
    assert f"  log_interval={experiment['log_interval']}\n" in text
    assert "  seed=7\n      random seed of" in text
    assert "  mini: The embedded corpus" in text
    run("train", "--help", "experiment=cpu", "model=small", monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert "  data.max_duration=60.0\n" in text
    assert "  model.encoder.num_encoder_layers=[2,2,2,2,2,2]\n" in text  # the command line wins


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_command_line_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    first = {"prepare": ["corpus=mini"], "sweep": ["sweep=supervision"]}.get(name, [])
    message = answer(name, *first, "sed=1", monkeypatch=monkeypatch, capsys=capsys)
    assert f"sed cannot be set: python scripts/{name}.py has no such setting" in message
    composed = CommandHelp(name, name, CONF_DIR).compose(first)
    required = [key for key, value, _ in _rows(composed) if value == "???"]
    typo = required[-1][:-1]
    message = answer(name, *first, f"{typo}=1", monkeypatch=monkeypatch, capsys=capsys)
    assert f"did you mean {required[-1]}? " in message
    message = answer(name, *first, monkeypatch=monkeypatch, capsys=capsys)
    assert all(f"{key}=VALUE" in message for key in required if key != "start")
    message = answer(name, "--model-dir", "x", monkeypatch=monkeypatch, capsys=capsys)
    assert "--model-dir is no option; settings have no dashes: model_dir=VALUE" in message
    for unread in ("data_dir", "data_dir=[", "data_dir=录音"):
        message = answer(name, unread, monkeypatch=monkeypatch, capsys=capsys)
        assert f"{unread} is not understood: settings are NAME=VALUE" in message
    assert "--help lists all settings" in message


def test_typos_in_parts_and_values(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name, arguments, remedy in [
        ("train", ["data.max_durration=3"], "did you mean data.max_duration?"),
        ("train", ["max_duration=3"], "did you mean data.max_duration?"),
        ("train", ["data.mixing.corpora=[{data_dri: x}]"], "cannot be set so: Key 'data_dri' not in"),
        ("train", ["model=larg"], "choose one of large, medium, small, tiny; did you mean large?"),
        ("train", ["experiment=nothing"], "choose one of cpu, "),
        ("train", ["seed=many"], "seed=many: Value 'many' of type 'str' could not be converted to Integer"),
        ("prepare", [], "choose corpus=NAME, one of aidatatang, aishell, "),
        ("prepare", ["corpus=minni"], "did you mean mini?"),
        ("sweep", [], "choose sweep=NAME, one of "),
        ("embed", ["embedder=zip"], "expected one of [zipformer, "),
        ("retrieve", ["score=seq"], "score=seq: Invalid value 'seq', expected one of [seqsim, pooled"),
        ("challenge", ["removals=[foo]"], "expected one of [sound, names, duration]"),
    ]:
        assert remedy in answer(name, *arguments, monkeypatch=monkeypatch, capsys=capsys)


# Scripts, their settings, and what the answer must say; {any} stands for each of none, empty and file.
CALLS = [
    ("decode embed controls layers", "model_dir={none} data_dir={data} split=valid", "fangyan average"),
    ("decode embed controls layers", "model_dir={empty} data_dir={data} split=valid", "config.json"),
    ("decode embed controls layers", "model_dir={damaged} data_dir={data} split=valid", "is not valid JSON"),
    ("decode embed controls layers interpret", "model_dir={damaged} data_dir={any}", "fangyan prepare"),
    ("decode embed controls layers interpret", "model_dir={damaged} data_dir={data} split=tst", "train, v"),
    ("decode", "model_dir={damaged} data_dir={data} method=bem", "one of attention, beam, ctc, greedy"),
    ("score", "results={any} scoring=mer", "cer.json is missing"),
    ("score", "results={none} scoring=wer", "choose one of plain, wenetspeech"),
    ("decode", "model_dir={damaged} data_dir={data} split=valid device=gpu", "use auto, cpu, cuda"),
    ("controls", "model_dir={damaged} data_dir={data} controls=[zip]", "no control zip: give permuted, or"),
    ("layers", "model_dir={damaged} data_dir={data} steps=[foo]", "some of retrieval, exits, probes"),
    ("interpret", "model_dir={damaged} data_dir={data} aligner=foo", "choose one of attention, ctc"),
    ("report summary", "model_dir={none}", "fangyan average"),
    ("report summary", "model_dir={file}", "fangyan average"),
    ("report summary", "model_dir={damaged}", "config.json: not JSON"),
    ("summary", "model_dir={empty}", "has no results of the split test: make them with fangyan decode"),
    ("paper_table", "model_dir={any}", "fangyan retrieve"),
    ("retrieve", "model_dir={any}", "fangyan embed"),
    ("scores", "model_dirs=[{any}] out_dir={new}", "fangyan embed"),
    ("scores", "model_dirs=[] out_dir={new}", "model_dirs is empty"),
    ("compare", "results=[{any},{damaged}] output={new}", "fangyan retrieve"),
    ("compare", "results=[] output={new}", "at least two models"),
    ("average", "exp_dir={any}", "train first (fangyan train"),
    ("average", "exp_dir={empty} method=mean", "choose one of running, checkpoints"),
    ("challenge", "data_dir={any}", "fangyan prepare"),
    ("mixture", "file={none} data_dir={new}", "there is no mixture file"),
    ("card", "directory={new} data_dirs=[{empty}]", "run fangyan prepare"),
    ("card", "directory={new}", "no corpus is given: data_dirs="),
    ("challenge", "data_dir={data} split=tst", "train, valid"),
    ("transcripts", "source={any} data_dir={new}", "fangyan prepare"),
    ("transcripts", "source={data} data_dir={new} +scripts.foo=s2t", "of that dialect group; there are cmn"),
    ("train", "data_dir={any} exp_dir={new} max_steps=1", "fangyan prepare"),
    ("train", "data_dir={data} exp_dir={new}", "set num_epochs, max_steps"),
    ("train", "data_dir={data} exp_dir={new} max_steps=1 init_from={none}", "give a model directory"),
    ("train", "data_dir={data} exp_dir={file} max_steps=1 data=mini", "a file; choose another exp_dir"),
    ("prepare", "corpus=folder corpus.tsv={none} data_dir={new}", "set corpus.tsv to your table"),
    ("prepare", "corpus=folder corpus.tsv={empty} data_dir={new}", "set corpus.tsv to your table"),
    ("prepare", "corpus=folder corpus.tsv={file} data_dir={new}", "the table has no column 'path'"),
    ("prepare", "corpus=folder corpus.tsv={file} data_dir={file}", "is a file; choose another data_dir"),
    ("prepare", "corpus=yubao corpus.metadata={none} corpus.audio_dir={none} data_dir={new}", "set corpus"),
    ("sweep", "sweep=supervision data_dir={data} exp_dir={new} start={any}", "fangyan average"),
]  # fmt: skip
SINGLE_CALLS = [
    (name, arguments.replace("{any}", f"{{{place}}}"), remedy)
    for names, arguments, remedy in CALLS
    for name in names.split()
    for place in (("none", "empty", "file") if "{any}" in arguments else ("none",))
]


@pytest.mark.parametrize(("name", "arguments", "remedy"), SINGLE_CALLS)
def test_wrong_places_are_one_line(
    name: str, arguments: str, remedy: str, places, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    filled = arguments.format(**places).split()
    assert remedy in answer(name, *filled, monkeypatch=monkeypatch, capsys=capsys)
    assert not (places["none"]).exists()


def test_every_script_is_called_wrongly() -> None:
    assert {call[0] for call in SINGLE_CALLS} == set(NAMES)


def test_a_fault_of_the_program_keeps_its_traceback(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zipformer.decoding.recognise.check_model_files", lambda directory: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("decode", f"model_dir={places['none']}", f"data_dir={places['data']}", monkeypatch=monkeypatch)


@pytest.mark.parametrize("value", ["/data/lang=yue/t.tsv", "/录音/t.tsv", "/a(b)/c", "it's, 1=2"])
def test_a_path_that_hydra_cannot_read_comes_back_in_quotes(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    message = answer("train", f"data_dir={value}", monkeypatch=monkeypatch, capsys=capsys)
    quoted = message.partition("put it in quotes: ")[2].rpartition("; ")[0]
    (override,) = OverridesParser.create().parse_overrides(shlex.split(quoted))
    assert (override.key_or_group, override.value()) == ("data_dir", value)


def test_labels_that_hydra_cannot_read_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    arguments = ["corpus=folder", "+corpus.dialect_map={官話: yue}"]
    assert "corpus.dialect_map_file=FILE" in answer(
        "prepare", *arguments, monkeypatch=monkeypatch, capsys=capsys
    )
