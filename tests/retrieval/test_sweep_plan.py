"""Plans of sweeps: order, settings, what is shared, what is kept, and what is refused."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING

from retrieval.comparison.sweep import STEPS, SweepConfig, SweepRun, Variant
from retrieval.comparison.sweep import plan_runs as plan_runs_of
from zipformer.errors import UserError


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            (tmp_path / name / f"cuts_{split}.jsonl.gz").write_text(f"{name} {split}")
        (tmp_path / name / "tokens").mkdir()
        (tmp_path / name / "tokens" / "tokens.model").write_text(name)
    return tmp_path / "data"


def sweep(data_dir: Path, **settings: object) -> SweepConfig:
    content: dict[str, object] = {
        "name": "depth",
        "data_dir": str(data_dir),
        "exp_dir": str(data_dir.parent / "exp"),
        "variants": {
            "weak": Variant(folder="plain"),
            "strong": Variant(train=["model.attention_decoder.num_layers=12"]),
        },
        "baseline": "weak",
        "seeds": [1, 2],
        "train": ["experiment=short"],
    }
    return SweepConfig(**{**content, **settings})  # type: ignore[arg-type]


def plan_runs(config: SweepConfig, **optim: float) -> list[SweepRun]:
    """The plan where conf/ has these settings of the optimiser."""

    def resolve(overrides: Sequence[str]) -> Mapping[str, object]:
        return {"num_threads": len(overrides), "optim": {"lr": 0.045, **optim}}

    return plan_runs_of(config, resolve)


def start(folder: Path, trained: list[str]) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    (folder / "provenance.json").write_text(json.dumps({"trained_dialects": trained}))
    return folder


def test_all_variants_come_before_the_next_seed(data_dir: Path) -> None:
    runs = plan_runs(sweep(data_dir))
    assert [(run.variant, run.seed) for run in runs] == [
        ("weak", 1),
        ("strong", 1),
        ("weak", 2),
        ("strong", 2),
    ]
    exp_dir = data_dir.parent / "exp"
    assert [run.directory for run in runs[:2]] == [
        exp_dir / "plain" / "seed-1",
        exp_dir / "strong" / "seed-1",
    ]
    assert all(tuple(run.commands) == STEPS for run in runs)


def test_commands_say_everything(data_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    variants = {
        "all": Variant(),
        "none": Variant(train=["loss.ctc=1"], left_out=["yue", "nan"], data_dir=str(other)),
    }
    begin = start(tmp_path / "start", ["cmn"])
    config = sweep(
        data_dir,
        variants=variants,
        baseline="all",
        further=["model=large"],
        machine=["num_threads=1"],
        start=str(begin),
        method="greedy",
    )
    run = plan_runs(config)[1]
    directory = tmp_path / "exp" / "none" / "seed-1"
    assert run.commands["train"] == [
        "experiment=short",
        "loss.ctc=1",
        "model=large",
        "data.left_out_dialects=[yue,nan]",
        "num_threads=1",
        f"data_dir={other}",
        f"exp_dir={directory}",
        "seed=1",
        f"init_from={begin}",
    ]
    assert run.commands["average"] == [f"exp_dir={directory}"]
    measured = [f"model_dir={directory}/averaged", f"data_dir={other}", "split=test"]
    assert run.commands["decode"] == [*measured, "method=greedy"]
    assert run.commands["embed"] == measured


def test_what_is_finished_is_kept_as_long_as_the_settings_are(data_dir: Path) -> None:
    run = plan_runs(sweep(data_dir))[0]
    assert run.finished() == []
    run.note(["train", "average"])
    assert plan_runs(sweep(data_dir, machine=["num_threads=8"]))[0].finished() == ["train", "average"]
    assert plan_runs(sweep(data_dir, variants={"same": Variant(folder="plain")}, baseline="same"))[
        0
    ].finished() == ["train", "average"]
    with pytest.raises(ValueError, match=r"other settings:\n  train: .*short.* then, .*max_steps=9.* now"):
        plan_runs(sweep(data_dir, further=["max_steps=9"]))[0].finished()
    # A start that was trained anew has other weights: its runs are other runs.
    begin = start(data_dir.parent / "start", ["cmn"])
    with pytest.raises(ValueError, match="start: None then"):
        plan_runs(sweep(data_dir, start=str(begin)))[0].finished()


def test_settings_in_conf_are_settings_of_the_run(data_dir: Path) -> None:
    run = plan_runs(sweep(data_dir))[0]
    run.note(["train"])
    with pytest.raises(ValueError, match=r"other settings:\n  optim.lr: 0.045 then, 0.03 now\n"):
        plan_runs(sweep(data_dir), lr=0.03)[0].finished()
    assert plan_runs(sweep(data_dir), beta=0.9)[0].finished() == ["train"]  # came with a later version


def test_other_tokens_and_another_launcher_make_other_runs(data_dir: Path) -> None:
    plan_runs(sweep(data_dir))[0].note(["train"])
    with pytest.raises(ValueError, match=r"launcher: \[\] then, \['torchrun'\] now"):
        plan_runs(sweep(data_dir, launcher=["torchrun"]))[0].finished()
    moved = data_dir.parent / "again"
    data_dir.rename(moved)
    (moved / "tokens" / "tokens.model").write_text("of another text")
    with pytest.raises(ValueError, match=r"other settings:\n  tokens: \w+ then, \w+ now\n"):
        plan_runs(sweep(moved))[0].finished()


def test_folders_may_have_any_name(data_dir: Path) -> None:
    exp_dir = data_dir.parent / '方言, ("a"=1)'
    run = plan_runs(sweep(data_dir, exp_dir=str(exp_dir)))[0]
    parsed = OverridesParser.create().parse_overrides([*run.commands["train"], *run.commands["embed"]])
    values = {override.key_or_group: override.value() for override in parsed}
    assert values["exp_dir"] == f"{exp_dir}/plain/seed-1"
    assert values["model_dir"] == f"{exp_dir}/plain/seed-1/averaged"
    assert values["data_dir"] == str(data_dir)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "medium"}, "baseline=medium is none of the variants weak, strong"),
        ({"seeds": []}, "must name at least one seed"),
        ({"seeds": [1, 1]}, "and each once"),
        (
            {"variants": {"weak": Variant(data_dir=MISSING)}},
            r"variants\.weak\.data_dir is missing: give the prepared corpus",
        ),
    ],
)
def test_problems_are_named(data_dir: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_runs(sweep(data_dir, **settings))


def test_a_start_must_not_know_what_is_left_out(data_dir: Path, tmp_path: Path) -> None:
    begin = start(tmp_path / "start", ["cmn", "yue"])
    variants = {"all": Variant(), "no yue": Variant(left_out=["yue"])}
    with pytest.raises(ValueError, match="was trained on yue, which variant no yue leaves out"):
        plan_runs(sweep(data_dir, variants=variants, baseline="all", start=str(begin)))


def test_a_variant_can_have_a_start_of_its_own(data_dir: Path, tmp_path: Path) -> None:
    begin = start(tmp_path / "start", ["cmn"])
    variants = {"scratch": Variant(), "pretrained": Variant(start=str(begin))}
    scratch, pretrained = plan_runs(sweep(data_dir, variants=variants, baseline="scratch", seeds=[1]))
    assert not any(setting.startswith("init_from") for setting in scratch.commands["train"])
    assert pretrained.commands["train"][-1] == f"init_from={begin}"
    assert scratch.settings["start"] is None
    assert pretrained.settings["start"] is not None
    variants["pretrained"].start = "???"
    with pytest.raises(ValueError, match=r"variants\.pretrained\.start is missing"):
        plan_runs(sweep(data_dir, variants=variants, baseline="scratch"))


def test_missing_folders_are_named(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no model directory"):
        plan_runs(sweep(data_dir, start=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"cuts_train\.jsonl\.gz does not exist: prepare"):
        plan_runs(sweep(tmp_path / "nothing"))


def test_variants_do_not_share_a_folder(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="several variants have the folder plain"):
        sweep(data_dir, variants={"weak": Variant(folder="plain"), "plain": Variant()})
    with pytest.raises(ValueError, match="at_once=-1"):
        sweep(data_dir, at_once=-1)
