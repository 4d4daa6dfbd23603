"""Miniatures of corpora of Mandarin, in their layouts with their oddities."""

import json
from pathlib import Path

from miniature import Miniature, noise, write


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
        sidecars=[root / "data" / "A11_0.wav.trn"],
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
        sidecars=[root / "20170001P00001A0001.txt"],
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
