"""Miniatures of corpora of meetings and conversations in Mandarin, in their layouts with their oddities."""

from pathlib import Path

import numpy as np
import soundfile
from miniature import RATE, Miniature, noise, write


def array(path: Path, seconds: float, channels: int = 8) -> Path:
    """Noise in the first channel of an array and silence in the others, so that a test knows the channel."""
    file = noise(path.with_suffix(".wav"), seconds)
    samples, _ = soundfile.read(file, dtype="float32")
    file.unlink()
    silent = np.zeros((len(samples), channels - 1), dtype=np.float32)
    soundfile.write(path, np.concatenate([samples[:, None], silent], axis=1), RATE)
    return path


def textgrid(path: Path, tiers: dict[str, list[tuple[float, float, str]]]) -> Path:
    """A TextGrid in the long form; what is not labelled is an interval without text."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 9 "]
    lines += ["tiers? <exists> ", f"size = {len(tiers)} ", "item []: "]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier" ', f'        name = "{name}" ']
        lines += ["        xmin = 0 ", "        xmax = 9 ", f"        intervals: size = {len(intervals)} "]
        for index, (start, end, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {start} ",
                f"            xmax = {end} ",
            ]
            lines.append(f'            text = "{text}" ')
    return write(path, *lines)


def aishell4(root: Path) -> Miniature:
    array_file, name = root / "train_M" / "wav" / "20200616_M_R001S01C01.flac", "20200616_M_R001S01C01"
    array_file.parent.mkdir(parents=True)
    array(array_file, 9.0)
    grid = textgrid(
        root / "train_M" / "TextGrid" / f"{name}.TextGrid",
        {
            "001-F": [(0.0, 1.0, ""), (1.0, 2.5, '我们说""好""<sil>'), (2.5, 4.0, "<%>")],
            "002-M": [(2.0, 3.5, "对\n对`对"), (4.0, 5.5, "")],
        },
    )
    broken = root / "train_M" / "TextGrid" / "20200622_M_R002S07C01.TextGrid"
    write(broken, "rubbish")
    (root / "test" / "wav").mkdir(parents=True)
    array(root / "test" / "wav" / "L_R003S01C02.flac", 9.0)
    textgrid(root / "test" / "TextGrid" / "L_R003S01C02.TextGrid", {"1": [(0.5, 2.0, "开会了")]})
    return Miniature(
        ["corpus=aishell4", f"corpus.root={root}", "corpus.valid_sessions=0"],
        {
            "train": {
                f"aishell4-{name}-001-F-00002": ("我们说好", "cmn"),
                f"aishell4-{name}-002-M-00001": ("对对对", "cmn"),
            },
            "test": {"aishell4-L_R003S01C02-1-00001": ("开会了", "cmn")},
        },
        {(f"aishell4-{name}-001-F-00003", "empty_after_normalisation")},
        sidecars=[grid],
    )


def alimeeting(root: Path) -> Miniature:
    far = root / "Train_Ali_far"
    (far / "audio_dir").mkdir(parents=True)
    array(far / "audio_dir" / "R0015_M0151_MS002.wav", 9.0)
    grid = textgrid(
        far / "textgrid_dir" / "R0015_M0151.TextGrid",
        {
            "R0015_M0151_F_SPK0093": [(1.0, 2.5, "今天开会，")],
            "N_M_SPK0094": [(2.0, 3.5, "好的")],
            "M_SPK0095": [(5.0, 6.5, "散会")],
        },
    )
    test = root / "Test_Ali" / "Test_Ali_far"
    (test / "audio_dir").mkdir(parents=True)
    array(test / "audio_dir" / "R0010_M0100_MS001.wav", 9.0)
    textgrid(
        test / "textgrid_dir" / "R0010_M0100.TextGrid",
        {"F_SPK0200": [(0.5, 2.0, "测试"), (3.0, 4.5, "重叠")], "M_SPK0201": [(4.0, 5.5, "也重叠")]},
    )
    return Miniature(
        ["corpus=alimeeting", f"corpus.root={root}"],
        {
            "train": {
                "alimeeting-R0015_M0151-R0015_M0151_F_SPK0093-00001": ("今天开会", "cmn"),
                "alimeeting-R0015_M0151-N_M_SPK0094-00001": ("好的", "cmn"),
                "alimeeting-R0015_M0151-M_SPK0095-00001": ("散会", "cmn"),
            },
            "test": {
                "alimeeting-R0010_M0100-F_SPK0200-00001": ("测试", "cmn"),
                "alimeeting-R0010_M0100-F_SPK0200-00002": ("重叠", "cmn"),
                "alimeeting-R0010_M0100-M_SPK0201-00001": ("也重叠", "cmn"),
            },
        },
        sidecars=[grid],
    )


def ramc(root: Path) -> Miniature:
    lists = []
    for part, name, speaker in (
        ("train", "CTS-CN-F2F-2019-11-11-1", "G00000001"),
        ("dev", "CTS-CN-F2F-2019-11-11-2", "G00000002"),
        ("test", "CTS-CN-F2F-2019-11-11-3", "G00000003"),
    ):
        noise(root / "MDT2021S003" / "WAV" / f"{name}.wav", 6.0)
        write(
            root / "MDT2021S003" / "TXT" / f"{name}.txt",
            "[0.000,0.500]\tG00000000\t无,无\t[SONANT]",
            f"[0.500,2.000]\t{speaker}\t男,普通话\t你好，{'一二三'[len(lists)]}[LAUGHTER]",
            f"[2.000,3.500]\t{speaker}\t男,普通话\t[MUSIC]",
        )
        lists.append(write(root / "DataPartition" / f"{part}.tsv", "/data/MDT2021S003", f"{name}.wav\t1024"))
    names = {"train": ("1", "一"), "valid": ("2", "二"), "test": ("3", "三")}
    return Miniature(
        ["corpus=ramc", f"corpus.root={root}"],
        {
            split: {f"ramc-CTS-CN-F2F-2019-11-11-{number}-00002": (f"你好{character}", "cmn")}
            for split, (number, character) in names.items()
        },
        {
            (f"ramc-CTS-CN-F2F-2019-11-11-{number}-00003", "empty_after_normalisation")
            for number, _ in names.values()
        },
        lists,
    )
