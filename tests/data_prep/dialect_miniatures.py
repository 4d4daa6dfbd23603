"""Miniatures of corpora of dialects, in their layouts with their oddities."""

import json
from pathlib import Path

from miniature import RATE, Miniature, noise, write


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
