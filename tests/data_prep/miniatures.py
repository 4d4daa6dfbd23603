"""Miniatures of public corpora: their layouts with their oddities, filled with noise.

``MINIATURES`` has a function for each corpus. It writes the corpus to a folder and gives the settings of
``fangyan prepare`` and what must come out.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


@dataclass
class Miniature:
    """A corpus on disk.

    Attributes:
        settings: overrides of the command prepare.
        cuts: by split, and there by utterance id, the normalised text and the most exact variety.
        problems: ids and kinds of the problems that cost an utterance.
        lists: files that the reader cannot do without.
    """

    settings: list[str]
    cuts: dict[str, dict[str, tuple[str, str]]]
    problems: set[tuple[str, str]] = field(default_factory=set)
    lists: list[Path] = field(default_factory=list)


def noise(path: Path, seconds: float = 1.5, rate: int = RATE, **kind: str) -> Path:
    """White noise that depends on the path."""
    seed = zlib.crc32(str(path).encode())
    samples = np.random.default_rng(seed).uniform(-0.1, 0.1, size=int(seconds * rate)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **kind)
    return path


def write(path: Path, *lines: str, end: str = "\n", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def kespeech(root: Path) -> Miniature:
    rows = {
        "train_phase1": [
            ("1001_a1", "你好<SPOKEN_NOISE>世界", "Southwestern"),
            ("1001_a2", "", "Southwestern"),
        ],
        "train_phase2": [("1001_b1", "你好世界", "Mandarin")],
        "dev_phase1": [("1002_a1", "今天天气好", "Ji-Lu")],
        "dev_phase2": [("1002_b1", "今天天气好", "Mandarin")],
        "test": [("1003_a1", "我们去吃饭", "Lan-Yin"), ("1003_b1", "他不来了", "Mandarin")],
    }
    lists = []
    for part, utterances in rows.items():
        folder = root / "Tasks" / "ASR" / part
        audio = {}
        for name, _, _ in utterances:
            speaker, phase = name.split("_")[0], "phase1" if name.split("_")[1][0] == "a" else "phase2"
            audio[name] = f"Audio/{speaker}/{phase}/{name}.wav"
            noise(root / audio[name])
        lists.append(write(folder / "wav.scp", *(f"{name} {path}" for name, path in audio.items())))
        # An id without a text is a line of its own; another list may lack the line.
        write(folder / "text", *(f"{name} {text}".strip() for name, text, _ in utterances))
        lists.append(write(folder / "utt2spk", *(f"{name} {name[:4]}" for name, _, _ in utterances)))
        write(folder / "utt2subdialect", *(f"{name} {label}" for name, _, label in utterances))
    write(root / "Metadata" / "spk2city", "1001 Chengdu", "1002 Jinan", "1003 Lanzhou")
    write(root / "Metadata" / "spk2gender", "1001 Female", "1002 Male")
    return Miniature(
        ["corpus=kespeech", f"corpus.root={root}"],
        {
            "train": {
                "kespeech-1001_a1": ("你好世界", "mandarin-southwestern"),
                "kespeech-1001_b1": ("你好世界", "cmn"),
            },
            "valid": {
                "kespeech-1002_a1": ("今天天气好", "mandarin-jilu"),
                "kespeech-1002_b1": ("今天天气好", "cmn"),
            },
            "test": {
                "kespeech-1003_a1": ("我们去吃饭", "mandarin-lanyin"),
                "kespeech-1003_b1": ("他不来了", "cmn"),
            },
        },
        {("kespeech-1001_a2", "empty_text")},
        lists,
    )


CV_COLUMNS = (
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tgender\taccents\tvariant\tlocale"
)


def common_voice(root: Path, locale: str = "yue") -> Miniature:
    folder = root / locale
    rows = {
        "train": [("s1", "common_voice_yue_1.mp3", '佢話"好呀')],
        "dev": [("s2", "common_voice_yue_2.mp3", "今日唔得閒")],
        "test": [("s3", "common_voice_yue_3.mp3", "食咗飯未")],
        # All of these, a further one, one of a test sentence, and one of a test speaker.
        "validated": [
            ("s1", "common_voice_yue_1.mp3", '佢話"好呀'),
            ("s2", "common_voice_yue_2.mp3", "今日唔得閒"),
            ("s3", "common_voice_yue_3.mp3", "食咗飯未"),
            ("s4", "common_voice_yue_4.mp3", "去邊度"),
            ("s4", "common_voice_yue_5.mp3", "食咗飯未？"),
            ("s3", "common_voice_yue_6.mp3", "落雨喇"),
        ],
    }
    for name, entries in rows.items():
        lines = [f"{s}\t{p}\tx\t{t}\t\t2\tmale_masculine\t出生地：廣州\t\t{locale}" for s, p, t in entries]
        write(folder / f"{name}.tsv", CV_COLUMNS, *lines)
    clips = sorted({path for entries in rows.values() for _, path, _ in entries})
    for clip in clips:
        noise(folder / "clips" / clip, rate=32000, format="MP3")
    write(folder / "clip_durations.tsv", "clip\tduration[ms]", *(f"{clip}\t1500" for clip in clips))
    return Miniature(
        ["corpus=common_voice", f"corpus.root={root}", f"corpus.locale={locale}", "corpus.train=validated"],
        {
            "train": {
                "cv-common_voice_yue_1": ("佢话好呀", "yue"),
                "cv-common_voice_yue_4": ("去边度", "yue"),
            },
            "valid": {"cv-common_voice_yue_2": ("今日唔得闲", "yue")},
            "test": {"cv-common_voice_yue_3": ("食咗饭未", "yue")},
        },
        {
            ("cv-common_voice_yue_5", "sentence_overlap"),
            ("cv-common_voice_yue_6", "speaker_overlap"),
        },
        [folder / "validated.tsv", folder / "dev.tsv"],
    )


def mdcc(root: Path) -> Miniature:
    rows = {
        "train": [
            ("447_1806171234_1_2.5_4.0", "(music)係呀", 1.5),
            ("447_1806171234_2_4_5.5", "冇文字", 1.5),
        ],
        "valid": [("447_1806181234_1_2.5_4.0", "{點}解唔去", 1.5)],
        "test": [("447_1806191234_1_2.5_4.0", "(music 今日好熱", 1.5), ("447_1806191234_2_4_9", "太長", 5.0)],
    }
    (root / "transcription").mkdir(parents=True)
    for split, clips in rows.items():
        lines = []
        for name, text, seconds in clips:
            noise(root / "audio" / f"{name}.wav")
            if text != "冇文字":
                write(root / "transcription" / f"{name}.txt", text)
            lines.append(f"./audio/{name}.wav,./transcription/{name}.txt,female,{seconds}")
        write(root / f"cnt_asr_{split}_metadata.csv", "audio_path,text_path,sex,duration", *lines)
    return Miniature(
        ["corpus=mdcc", f"corpus.root={root}"],
        {
            "train": {"mdcc-447_1806171234_1_2.5_4.0": ("系呀", "yue-hongkong")},
            "valid": {"mdcc-447_1806181234_1_2.5_4.0": ("点解唔去", "yue-hongkong")},
            "test": {"mdcc-447_1806191234_1_2.5_4.0": ("今日好热", "yue-hongkong")},
        },
        {
            ("mdcc-447_1806171234_2_4_5.5", "empty_text"),
            ("mdcc-447_1806191234_2_4_9", "audio_mismatch"),
        },
        [root / "cnt_asr_train_metadata.csv", root / "cnt_asr_test_metadata.csv"],
    )


def wenetspeech(root: Path) -> Miniature:
    def segment(sid: str, begin: float, text: str, *subsets: str) -> dict[str, object]:
        times = {"begin_time": begin, "end_time": begin + 1.5}
        return {"sid": sid, **times, "text": text, "confidence": 1.0, "subsets": list(subsets)}

    audios = [
        ("Y1", "audio/train/youtube/B00000/Y1.opus", 4.0, [
            segment("Y1_S00000", 0.25, "旧标签错", "L", "M", "S"),
            segment("Y1_S00001", 1.5, "只在大的里", "L"),
            segment("Y1_S00002", 2.0, "与前面重叠", "L", "M"),
            segment("Y1_S00003", 3.5, "超出了录音", "L", "M"),
        ]),
        ("X9", "audio/train/podcast/B00000/X9.opus", 2.0, [segment("X9_S00000", 0.0, "没有文件", "L", "M")]),
        ("Y2", "audio/dev/third_party/B00000/Y2.opus", 2.0, [segment("Y2_S00000", 0.25, "开发集", "DEV")]),
        ("Y3", "audio/test_net/B00000/Y3.opus", 2.0, [segment("Y3_S00000", 0.25, "网络测试", "TEST_NET")]),
        ("Y4", "audio/test_meeting/Y4.opus", 2.0, [segment("Y4_S00000", 0.25, "会议测试", "TEST_MEETING")]),
    ]  # fmt: skip
    for aid, path, seconds, _ in audios:
        if aid != "X9":
            noise(root / path, seconds, 48000, format="OGG", subtype="OPUS")
    content = [
        {
            "aid": aid,
            "path": path,
            "duration": seconds,
            "md5": "",
            "source": "",
            "tags": [],
            "segments": segments,
        }
        for aid, path, seconds, segments in audios
    ]
    metadata = root / "WenetSpeech.json"
    metadata.write_text(json.dumps({"audios": content}, ensure_ascii=False, indent=4), encoding="utf-8")
    fix = write(root / "text.fix", "Y1_S00000 新标签对", "Y3_S00000 测试不改")
    return Miniature(
        ["corpus=wenetspeech", f"corpus.root={root}", f"corpus.text_fix={fix}", "corpus.workers=1"],
        {
            "train": {
                "wenetspeech-Y1_S00000": ("新标签对", "cmn"),
                "wenetspeech-Y1_S00002": ("与前面重叠", "cmn"),
            },
            "valid": {"wenetspeech-Y2_S00000": ("开发集", "cmn")},
            "test": {
                "wenetspeech-Y3_S00000": ("网络测试", "cmn"),
                "wenetspeech-Y4_S00000": ("会议测试", "cmn"),
            },
        },
        {("wenetspeech-Y1_S00003", "beyond_audio"), ("wenetspeech-X9_S00000", "missing_audio")},
        [metadata],
    )


def wenetspeech_yue(root: Path) -> Miniature:
    def line(key: str, text: str, confidence: float, region: str, **more: object) -> str:
        entry = {
            "key": key,
            "rover_result": text,
            "confidence": confidence,
            "duration": 1.5,
            "meta_info": {"region": region, "program": "x", "link": ""},
            "utt2spk_attributes": {"spk": "S1", "multispk": False, "age": "OLD", "gender": "男"},
            **more,
        }
        return json.dumps(entry, ensure_ascii=False)

    metadata = write(
        root / "wenetspeech_yue_meta.jsonl",
        line("gd0027722_620270_621770", "我哋去食饭", 0.95, "广东"),
        # Types differ between lines.
        line("gd0027722_630000_631500", "佢唔知", 0.9, "香港", meta_info="", utt2spk_attributes=None),
        line("hk0000001_0_1500", "冇呢个档案", 0.99, "香港"),
        line("hk0000002_0_1500", "信心太低", 0.5, "香港"),
    )
    for key in ("gd0027722_620270_621770", "gd0027722_630000_631500", "hk0000002_0_1500"):
        noise(root / "clips" / f"{key}.wav")
    for name, folder in (("Short", "wav_"), ("Long", "wav")):
        key = f"0000450{len(name)}"
        noise(root / "eval" / name / folder / f"{key}.wav")
        write(root / "eval" / name / "content.txt", f"{key}\t你講OK就{'得' if name == 'Short' else '好'}")
    return Miniature(
        [
            *("corpus=wenetspeech_yue", f"corpus.root={root}", f"corpus.clips={root / 'clips'}"),
            *(f"corpus.eval_root={root / 'eval'}", "corpus.min_confidence=0.6", "corpus.valid=0"),
        ],
        {
            "train": {
                "wsyue-gd0027722_620270_621770": ("我哋去食饭", "yue"),
                "wsyue-gd0027722_630000_631500": ("佢唔知", "yue"),
            },
            "test": {
                "wsyue-Short-00004505": ("你讲OK就得", "yue"),
                "wsyue-Long-00004504": ("你讲OK就好", "yue"),
            },
        },
        {("wsyue-hk0000001_0_1500", "missing_audio")},
        [metadata, root / "eval" / "Short" / "content.txt"],
    )


def wenetspeech_chuan(root: Path) -> Miniature:
    def line(utt: str, text: str, confidence: str) -> str:
        entry = {"utt": utt, "filename": f"{utt}.wav", "text": text, "gender": "女", "confidence": confidence}
        return json.dumps(entry, ensure_ascii=False)

    names = ("013165482320_dwM1G_56_5920", "013165482320_dwM1G_57_7000")
    metadata = write(
        root / "wsc_metadata.jsonl", line(names[0], "巴适得很", "0.91"), line(names[1], "要不得", "0.3")
    )
    for name in names:
        noise(root / "clips" / f"{name}.wav")
    for name, text in (("Easy", "你*好（那个）"), ("Hard", "搞啥子")):
        folder = root / "eval" / name
        noise(folder / "wav" / f"{name}1.wav")
        write(folder / "text", f"{name}1 {text}")
        write(folder / "wav.scp", f"{name}1 /somewhere/else/{name}1.wav")
    return Miniature(
        [
            *("corpus=wenetspeech_chuan", f"corpus.root={root}", f"corpus.clips={root / 'clips'}"),
            *(f"corpus.eval_root={root / 'eval'}", "corpus.min_confidence=0.6", "corpus.valid=0"),
        ],
        {
            "train": {f"wschuan-{names[0]}": ("巴适得很", "mandarin-southwestern")},
            "test": {
                "wschuan-Easy-Easy1": ("你好那个", "mandarin-southwestern"),
                "wschuan-Hard-Hard1": ("搞啥子", "mandarin-southwestern"),
            },
        },
        lists=[metadata, root / "eval" / "Hard" / "text"],
    )


def magichub_cities(root: Path) -> Miniature:
    # 泸州 as unzip writes the bytes of GBK, taken for code page 437.
    folders = {"成都": "成都", "泸州".encode("gb18030").decode("cp437"): "泸州"}
    lists = []
    for number, folder in enumerate(folders):
        name = f"A000{number}_S0001_0_G0001.wav"
        noise(root / folder / "WAV" / f"G000{number}" / name)
        columns = "\ufeffCHANNEL\tUTTRANS_ID\tSPEAKER_ID\tPROMPT\tTRANSCRIPTION"
        text = f"C0\t{name}\tG000{number}\t我不知道\t[ENS]我{'晓得' if number else '晓不得'}"
        lists.append(write(root / folder / "UTTERANCEINFO.txt", columns, text, end="\r\n"))
        write(root / folder / "SPKINFO.txt", "CHANNEL\tSPEAKER_ID\tGENDER", f"C0\tG000{number}\tF")
    return Miniature(
        ["corpus=magichub", f"corpus.root={root}", "corpus.name=chuanyu", "corpus.split=train"],
        {
            "train": {
                "chuanyu-A0000_S0001_0_G0001": ("我晓不得", "mandarin-southwestern"),
                "chuanyu-A0001_S0001_0_G0001": ("我晓得", "mandarin-southwestern"),
            }
        },
        lists=lists[:1],
    )


def magichub_conversation(root: Path) -> Miniature:
    noise(root / "WAV" / "A0001.wav", 6.0)
    transcript = write(
        root / "TXT" / "A0001.txt",
        "[0.000,0.500]\t0\tnone\t[ENS]",
        "[0.500,2.000]\tG0001\tfemale\t你恰饭冒[LAUGHTER]",
        "[2.000,4.000]\tG0002\tmale\t恰咖哒",
        "[5.000,7.500]\tG0002\tmale\t录音不够长",
        encoding="gb18030",
    )
    return Miniature(
        [
            *("corpus=magichub", f"corpus.root={root}", "corpus.dialect=Changsha"),
            *("corpus.name=cs", "corpus.split=train"),
        ],
        {
            "train": {
                "cs-A0001-00002": ("你恰饭冒", "hsn-changsha"),
                "cs-A0001-00003": ("恰咖哒", "hsn-changsha"),
            }
        },
        {("cs-A0001-00004", "beyond_audio")},
        [transcript],
    )


def _speaker_folders(audio: Path, transcripts: Path, names: dict[str, tuple[str, str, str]]) -> Path:
    """Files of AISHELL-1 and aidatatang: by id, part, speaker and text; no text = not in the list."""
    for name, (part, speaker, _) in names.items():
        noise(audio / part / speaker / f"{name}.wav")
    return write(transcripts, *(f"{name} {text}" for name, (_, _, text) in names.items() if text))


def aishell(root: Path) -> Miniature:
    names = {
        "BAC009S0002W0122": ("train", "S0002", "而 对 楼市 成交"),
        "BAC009S0002W0123": ("train", "S0002", ""),
        "BAC009S0724W0121": ("dev", "S0724", "广州市 ａｂｃ 房地产"),
        "BAC009S0764W0121": ("test", "S0764", "甚至 出现 交易"),
    }
    transcripts = _speaker_folders(root / "wav", root / "transcript" / "aishell_transcript_v0.8.txt", names)
    return Miniature(
        ["corpus=aishell", f"corpus.root={root}"],
        {
            "train": {"aishell-BAC009S0002W0122": ("而对楼市成交", "cmn")},
            "valid": {"aishell-BAC009S0724W0121": ("广州市ABC房地产", "cmn")},
            "test": {"aishell-BAC009S0764W0121": ("甚至出现交易", "cmn")},
        },
        lists=[transcripts],
    )


def aishell2(root: Path) -> Miniature:
    rows = {
        "data": [("IC0001W0001", "C0001", "'关停并转'"), ("IC0932W0001", "C0932", "文不对音")],
        "dev": [("ID0011W0001", "D0011", "ＡＴＭ机")],
        "test": [("IT0011W0001", "T0011", "测试句")],
    }
    lists = []
    for part, utterances in rows.items():
        for name, speaker, _ in utterances:
            noise(root / part / "wav" / speaker / f"{name}.wav")
        files = (f"{name}\twav/{speaker}/{name}.wav" for name, speaker, _ in utterances)
        lists.append(write(root / part / "wav.scp", *files))
        texts = (f"{name}\t{text}" for name, _, text in utterances)
        lists.append(write(root / part / "trans.txt", *texts, end="\r\n"))
    return Miniature(
        ["corpus=aishell2", f"corpus.root={root}"],
        {
            "train": {"aishell2-IC0001W0001": ("关停并转", "cmn")},
            "valid": {"aishell2-ID0011W0001": ("ATM机", "cmn")},
            "test": {"aishell2-IT0011W0001": ("测试句", "cmn")},
        },
        lists=lists,
    )


def aishell3(root: Path) -> Miniature:
    texts = {
        "train": [("SSB0005", "SSB00050001.wav", "广 guang3 州 zhou1 女 nv3 大 da4")],
        "test": [("SSB0073", "SSB00730005.wav", "好 hao3 儿 er5")],
    }
    for part, rows in texts.items():
        for speaker, file, _ in rows:
            noise(root / part / "wav" / speaker / file, rate=44100)
        write(root / part / "content.txt", *(f"{file}\t{content}" for _, file, content in rows))
    write(root / "spk-info.txt", "# speaker", "", "SSB0005\tB\tfemale\tnorth", "SSB0073\tB\t\tsouth")
    return Miniature(
        ["corpus=aishell3", f"corpus.root={root}", "corpus.valid_speakers=0"],
        {
            "train": {"aishell3-SSB00050001": ("广州女大", "cmn")},
            "test": {"aishell3-SSB00730005": ("好儿", "cmn")},
        },
        lists=[root / "train" / "content.txt", root / "spk-info.txt"],
    )


def fleurs(root: Path) -> Miniature:
    texts = {
        "train": ("1", {"cmn_hans_cn": "他说：3个人。", "yue_hant_hk": "佢話：3個人。"}),
        "dev": ("2", {"cmn_hans_cn": "今天下雨。", "yue_hant_hk": "今日落雨。"}),
        "test": ("3", {"cmn_hans_cn": "他们走了。", "yue_hant_hk": "佢哋走咗。"}),
    }
    lists = []
    for language in ("cmn_hans_cn", "yue_hant_hk"):
        for part, (number, by_language) in texts.items():
            file = f"1{number}{len(language)}7.wav"
            noise(root / language / "audio" / part / file)
            raw = by_language[language]
            row = f"{number}\t{file}\t{raw}\t{raw}\t\t{int(1.5 * RATE)}\tFEMALE"  # a field may be empty
            lists.append(write(root / language / f"{part}.tsv", row))
    return Miniature(
        ["corpus=fleurs", f"corpus.root={root}"],
        {
            "train": {
                "fleurs-cmn_hans_cn-11117": ("他说3个人", "cmn-mainland"),
                "fleurs-yue_hant_hk-11117": ("佢话3个人", "yue-hongkong"),
            },
            "valid": {
                "fleurs-cmn_hans_cn-12117": ("今天下雨", "cmn-mainland"),
                "fleurs-yue_hant_hk-12117": ("今日落雨", "yue-hongkong"),
            },
            "test": {
                "fleurs-cmn_hans_cn-13117": ("他们走了", "cmn-mainland"),
                "fleurs-yue_hant_hk-13117": ("佢哋走咗", "yue-hongkong"),
            },
        },
        lists=lists[:2],
    )


def thchs30(root: Path) -> Miniature:
    rows = {
        "train": [("A11_0", "绿 是 阳春 烟 景")],
        "dev": [("B12_0", "绿 是 阳春 烟 景")],  # the sentences of train are read again
        "test": [("D13_0", "他 仅 凭 腰部")],
    }
    for part, utterances in rows.items():
        (root / part).mkdir(parents=True)
        for name, words in utterances:
            noise(root / "data" / f"{name}.wav")
            write(root / "data" / f"{name}.wav.trn", words, "lv4 shi4", "l v4 sh ix4")
            (root / part / f"{name}.wav").symlink_to(root / "data" / f"{name}.wav")
            write(root / part / f"{name}.wav.trn", f"../data/{name}.wav.trn")
    return Miniature(
        ["corpus=thchs30", f"corpus.root={root}"],
        {
            "train": {"thchs30-A11_0": ("绿是阳春烟景", "cmn")},
            "valid": {"thchs30-B12_0": ("绿是阳春烟景", "cmn")},
            "test": {"thchs30-D13_0": ("他仅凭腰部", "cmn")},
        },
    )


def stcmds(root: Path) -> Miniature:
    rows = {"20170001P00001A0001": "给 我 打电话，", "20170001P00002I0001": "放首歌"}
    for name, text in rows.items():
        noise(root / f"{name}.wav")
        write(root / f"{name}.txt", text, end="")
        write(root / f"{name}.metadata", "LBR\tx")
    return Miniature(
        ["corpus=stcmds", f"corpus.root={root}", "corpus.valid_speakers=0", "corpus.test_speakers=0"],
        {
            "train": {
                "stcmds-20170001P00001A0001": ("给我打电话", "cmn"),
                "stcmds-20170001P00002I0001": ("放首歌", "cmn"),
            }
        },
    )


def primewords(root: Path) -> Miniature:
    entries = [
        {"id": 1, "user_id": "91", "file": "00a1.wav", "length": "1.5", "text": "仅 绘画 而论"},
        {"id": 2, "user_id": "92", "file": "ff02.wav", "length": "1.5", "text": "没有 这个 文件"},
    ]
    noise(root / "audio_files" / "0" / "00" / "00a1.wav")
    file = root / "set1_transcript.json"
    file.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return Miniature(
        ["corpus=primewords", f"corpus.root={root}", "corpus.valid_speakers=0", "corpus.test_speakers=0"],
        {"train": {"primewords-00a1": ("仅绘画而论", "cmn")}},
        {("primewords-ff02", "missing_audio")},
        [file],
    )


def aidatatang(root: Path) -> Miniature:
    names = {
        "T0055G0013S0001": ("train", "G0013", "以后 你 是 男孩"),
        "T0055G0002S0001": ("dev", "G0002", "Ａ 座 几 楼"),
        "T0055G0085S0001": ("test", "G0085", "没有 人"),
    }
    transcripts = root / "transcript" / "aidatatang_200_zh_transcript.txt"
    _speaker_folders(root / "corpus", transcripts, names)
    return Miniature(
        ["corpus=aidatatang", f"corpus.root={root}"],
        {
            "train": {"aidatatang-T0055G0013S0001": ("以后你是男孩", "cmn")},
            "valid": {"aidatatang-T0055G0002S0001": ("A座几楼", "cmn")},
            "test": {"aidatatang-T0055G0085S0001": ("没有人", "cmn")},
        },
        lists=[transcripts],
    )


def magicdata(root: Path) -> Miniature:
    rows = {
        "train": [("16_4013_20170819121430", "[FIL]你好,\ufeff吃《饭》"), ("16_4013_20170819121429", "坏的")],
        "dev": [("5_541_20170607142131", "SPK\u3000店")],
        "test": [("38_5716_20170914202211", "请打开灯")],
    }
    for part, utterances in rows.items():
        lines = ["UtteranceID\tSpeakerID\tTranscription"]
        for name, text in utterances:
            speaker = name.rsplit("_", 1)[0]
            noise(root / part / speaker / f"{name}.wav")
            lines.append(f"{name}.wav\t{speaker}\t{text}")
        write(root / part / "TRANS.txt", *lines)
    write(root / "SPKINFO.txt", "SPKID\tAge\tGender\tDialect", "16_4013\t20\tmale\tHe Bei")
    return Miniature(
        ["corpus=magicdata", f"corpus.root={root}"],
        {
            "train": {"magicdata-16_4013_20170819121430": ("你好吃饭", "cmn")},
            "valid": {"magicdata-5_541_20170607142131": ("SPK店", "cmn")},
            "test": {"magicdata-38_5716_20170914202211": ("请打开灯", "cmn")},
        },
        lists=[root / "train" / "TRANS.txt"],
    )


def speechio(root: Path) -> Miniature:
    lists = []
    for name, text in (("SPEECHIO_ASR_ZH00001", "12345"), ("SPEECHIO_ASR_ZH00002", "你好")):
        noise(root / name / "wav" / "u1.wav")
        row = f"u1\twav/u1.wav\t1.5\t{text}"
        lists.append(write(root / name / "metadata.tsv", "ID\tAUDIO\tDURATION\tTEXT", row))
    noise(root / "SPEECHIO_ASR_ZH00002" / "wav" / "u2.wav", 2.5)
    with lists[1].open("a", encoding="utf-8") as stream:
        stream.write("u2\twav/u2.wav\t1.5\t长度不对\n")
    return Miniature(
        ["corpus=speechio", f"corpus.root={root}"],
        {"test": {"SPEECHIO_ASR_ZH00001-u1": ("12345", "cmn"), "SPEECHIO_ASR_ZH00002-u1": ("你好", "cmn")}},
        {("SPEECHIO_ASR_ZH00002-u2", "audio_mismatch")},
        lists,
    )


def talcs(root: Path) -> Miniature:
    texts = {"train_set": "这个叫ＡＰple", "dev_set": "我们 say 你好", "test_set": "good 真棒"}
    lists = []
    for number, (part, text) in enumerate(texts.items()):
        noise(root / part / "wav" / f"{number}.wav")
        lists.append(write(root / part / "label.txt", f"{number} {text}"))
    return Miniature(
        ["corpus=talcs", f"corpus.root={root}"],
        {
            "train": {"talcs-0": ("这个叫APPLE", "cmn")},
            "valid": {"talcs-1": ("我们SAY你好", "cmn")},
            "test": {"talcs-2": ("GOOD真棒", "cmn")},
        },
        lists=lists,
    )


def wu_bench(root: Path) -> Miniature:
    import pyarrow
    import pyarrow.parquet

    table = root / "understanding" / "asr.parquet"
    sound = noise(root / "sound.wav").read_bytes()
    other = noise(root / "other.wav").read_bytes()
    columns = {
        "utt_id": ["w1", "w2", "w3"],
        "label": ["侬好", "吃饭OK", None],
        "audio": [sound, other, b""],
        "task": ["asr"] * 3,
    }
    table.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), table)
    return Miniature(
        ["corpus=wu_bench", f"corpus.root={root}"],
        {"test": {"wubench-w1": ("侬好", "wuu"), "wubench-w2": ("吃饭OK", "wuu")}},
        {("wubench-w3", "empty_text"), ("wubench-w3", "unreadable_audio")},
        [table],
    )


MINIATURES: dict[str, Callable[[Path], Miniature]] = {
    function.__name__: function
    for function in (
        *(kespeech, common_voice, mdcc, wenetspeech, wenetspeech_yue, wenetspeech_chuan),
        *(magichub_cities, magichub_conversation, aishell, aishell2, aishell3, fleurs),
        *(thchs30, stcmds, primewords, aidatatang, magicdata, talcs, speechio, wu_bench),
    )
}
