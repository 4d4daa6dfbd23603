"""Every miniature of a public corpus is prepared, trained on for two steps, and decoded."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from miniatures import MINIATURES
from omegaconf import OmegaConf
from rich.console import Console
from training_runs import config_for, newest, trained

from data_prep.pipeline import PrepareConfig, prepare
from fangyan.commands import CONF_DIR, register
from zipformer.decoding.methods import DecodeConfig
from zipformer.decoding.run import main as decode
from zipformer.run_averaging import main as average
from zipformer.training.averaging import AverageConfig

register("prepare")


# Those that are test sets only have nothing to train on.
TRAINABLE = [name for name in MINIATURES if name not in ("speechio", "wu_bench")]


@pytest.mark.parametrize("name", TRAINABLE)
def test_from_the_lists_to_an_error_rate(name: str, tmp_path: Path) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    data, exp = tmp_path / "data", tmp_path / "exp"
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        settings = [f"data_dir={data}", "num_workers=1", *miniature.settings]
        config = OmegaConf.to_object(compose("prepare", settings))
    assert isinstance(config, PrepareConfig)
    prepare(config, Console(quiet=True))
    trained(config_for(data, exp, max_steps=2))
    assert newest(exp).step == 2
    average(AverageConfig(exp_dir=str(exp), start_step=0, device="cpu"))
    split = "test" if "test" in miniature.cuts else "train"
    model = exp / "averaged"
    decode(DecodeConfig(model_dir=str(model), data_dir=str(data), split=split, method="ctc", device="cpu"))
    (file,) = model.glob("results/*/*/cer.json")
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    (overall,) = (row for row in rows if row["level"] == "overall")
    cuts = miniature.cuts[split]
    copies = 3 if split == "train" else 1  # speeds
    assert overall["utterances"] == copies * len(cuts)
    assert overall["reference_characters"] == copies * sum(
        len(text.replace(" ", "")) for text, _ in cuts.values()
    )
