"""Miniatures of corpora of dialects and of mixed speech, in their layouts with their oddities."""

import json
from pathlib import Path

from miniature import Miniature, noise, write

TAT_CHANNELS = ("condenser", "lavalier", "XYH-6-X", "XYH-6-Y", "ios", "android")


def tat(root: Path) -> Miniature:
    train = "TAT-Vol1-train-master"
    rows = [
        (
            "TAT-Vol1-train-master",
            "TAT-Vol1-train-master",
            "TAM0001",
            "1-1.1",
            "阿媽--ê 冊",
            "a1-ma2--e5 tsheh4",
        ),
        (train, train, "TAM0001", "1-1.2", "", ""),
        ("TAT-Vol1-eval", "TAT-Vol1-eval-key", "TAF0002", "1-1.1", "好天", "ho2-thinn1"),
        ("TAT-Vol2-test", "TAT-Vol2-test", "TAF0003", "1-1.1", "食飯", "tsiah8-png7"),
    ]
    sidecars = []
    for folder, key, speaker, name, han, tailo in rows:
        for number, channel in enumerate(TAT_CHANNELS, start=1):
            noise(root / folder / channel / "wav" / speaker / f"{name}-{number:02d}.wav")
        about = {
            "漢羅台文": han,
            "台羅": "x",
            "台羅數字調": tailo,
            "白話字": "x",
            "性別": "女",
            "發音人": speaker,
        }
        text = json.dumps(about, ensure_ascii=False, indent=1)
        sidecars.append(write(root / key / "json" / speaker / f"{name}.json", *text.split("\n")))
    return Miniature(
        ["corpus=tat", f"corpus.root={root}"],
        {
            "train": {"tat-Vol1-train-TAM0001-1-1.1-condenser": ("阿媽Ê冊", "nan-taiwan")},
            "valid": {"tat-Vol1-eval-TAF0002-1-1.1-condenser": ("好天", "nan-taiwan")},
            "test": {"tat-Vol2-test-TAF0003-1-1.1-condenser": ("食飯", "nan-taiwan")},
        },
        {("tat-Vol1-train-TAM0001-1-1.2-condenser", "empty_text")},
        sidecars=sidecars[:1],
    )


def hat(root: Path) -> Miniature:
    old = [
        ("F0010001A2007_1_07", "𠊎愛食飯", "ngai11 oi55 siid5 fan55", ""),
        ("F0010001A2007_1_08", "讀錯个", "tug5 co55 ge55", "讀錯"),
    ]
    new = [("DM1010001A.wav", "今*晡日好", "gim33 bu33 ngid21 ho31", ""), ("ZF1020002A.wav", "", "", "")]
    for name, *_ in (*old, *new):
        noise(root / "wav" / f"{name.removesuffix('.wav')}.wav")
    header = "檔名,客語漢字,客語拼音,備註"
    return Miniature(
        [
            *("corpus=hat", f"corpus.root={root}", "corpus.dialect=hak-sixian"),
            *("corpus.valid_speakers=0", "corpus.test_speakers=0"),
        ],
        {
            "train": {
                "hat-F0010001A2007_1_07": ("𠊎愛食飯", "hak-sixian"),
                "hat-DM1010001A": ("今晡日好", "hak-dapu"),
            }
        },
        {("hat-ZF1020002A", "empty_text")},
        sidecars=[
            write(root / "train.csv", f"\ufeff{header}", *(",".join(row) for row in old)),
            write(root / "FSR-2025_edit.csv", header, *(",".join(row) for row in new)),
        ],
    )


def teochew_wild(root: Path) -> Miniature:
    rows = {
        "train": [("a1.wav", "spk1", "汝好", "le2 ho2"), ("a2.wav", "spk1", "", "")],
        "val": [("b1.wav", "spk1", "食未", "ziah8 bhuê7")],
        "test": [("c1.wav", "spk2", "潮州人", "dio5 ziu1 nang5")],
        "": [("d1.wav", "spk2", "無人愛", "x")],
    }
    lists = []
    for part, utterances in rows.items():
        for name, *_ in utterances:
            noise(root / "teochew_wild" / name)
        if part:
            labels = (
                json.dumps({"audio": f"/data/wavs/{name}", "text": f"language Teochew<asr_text>{text}"})
                for name, _, text, _ in utterances
            )
            lists.append(write(root / "label_for_qwen_asr" / f"{part}.jsonl", *labels))
    lines = ("|".join(row) for utterances in rows.values() for row in utterances)
    annotation = write(root / "annotation.txt", *lines)
    return Miniature(
        ["corpus=teochew_wild", f"corpus.root={root}"],
        {
            "train": {"teochew_wild-a1": ("汝好", "nan-chaoshan")},
            "valid": {"teochew_wild-b1": ("食未", "nan-chaoshan")},
            "test": {"teochew_wild-c1": ("潮州人", "nan-chaoshan")},
        },
        {("teochew_wild-a2", "empty_text")},
        [annotation, *lists],
    )


XIANGYIN_COLUMNS = (
    "id,sound_length,votes,full_url,date,same_text,uploader_id,uploader.gender,uploader.birth_year,"
    "dialect.province,dialect.city,dialect.name,dialect.location_json.lat,dialect.location_json.lng,"
    "dialect.is_living,dialect.is_hometown,sentence.source.type,sentence.source.name,sentence.text,sentence.id"
)


def xiangyin(root: Path) -> Miniature:
    def line(
        number: int, province: str, city: str, text: str, sentence: str, same: str = "yes", s: str = "1.5"
    ) -> str:
        about = f"{number},{s},3,,2020-01,{same},{number % 2},男,1990.0,{province},{city},x"
        return f'{about},28.2,112.9,True,True,诗词,x,"{text}",{sentence}'

    for number in (*range(1, 7), 8, 9):
        noise(
            root / "clips" / f"{number}.ogg",
            rate=44100 if number == 2 else 16000,
            format="OGG",
            subtype="VORBIS",
        )
    table = write(
        root / "Metadata.CSV",
        XIANGYIN_COLUMNS,
        line(1, "湖南省", "长沙市", "床前明月光, 疑是地上霜", "7.0"),
        line(2, "江西省", "南昌", "床前明月光, 疑是地上霜", "7.0"),
        line(3, "四川省", "阿坝", "今天吃什么", "8.0"),  # the province is enough
        line(4, "广西壮族自治区", "南宁市", "今天吃什么", "8.0"),  # and here it is not
        line(5, "湖南省", "长沙市", "说的是别的", "9.0", same="no"),
        line(6, "山西省", "大同市", "长度不对", "10.0", s="9.0"),
        line(7, "山西省", "大同市", "没有文件", "11.0"),
        line(8, "福建省", "厦门市", "", "12.0"),
    )
    return Miniature(
        ["corpus=xiangyin", f"corpus.root={root}", "corpus.valid_sentences=0", "corpus.test_sentences=0"],
        {
            "train": {
                "xiangyin-1": ("床前明月光疑是地上霜", "hsn-changsha"),
                "xiangyin-2": ("床前明月光疑是地上霜", "gan-nanchang"),
                "xiangyin-3": ("今天吃什么", "mandarin-southwestern"),
            }
        },
        {
            ("xiangyin-4", "unknown_dialect"),
            ("xiangyin-6", "audio_mismatch"),
            ("xiangyin-7", "missing_audio"),
            ("xiangyin-8", "empty_text"),
        },
        [table],
    )


def ascend(root: Path) -> Miniature:
    import pyarrow
    import pyarrow.parquet

    rows = {
        "train": [("00000", "我觉得 it's 很好", "mixed", 1), ("00001", "", "zh", 1)],
        "validation": [("00000", "对啊", "zh", 2)],
        "test": [("00000", "that is right", "en", 3), ("00001", "没有 problem", "mixed", 3)],
    }
    tables = []
    for part, utterances in rows.items():
        sounds = [noise(root / "sounds" / f"{part}{name}.wav") for name, *_ in utterances]
        columns = {
            "id": [name for name, *_ in utterances],
            "path": ["x.wav" for _ in utterances],
            "audio": [{"bytes": sound.read_bytes(), "path": "x.wav"} for sound in sounds],
            "transcription": [text for _, text, _, _ in utterances],
            "duration": [1.5 for _ in utterances],
            "language": [language for _, _, language, _ in utterances],
            "original_speaker_id": [speaker for *_, speaker in utterances],
            "session_id": [1 for _ in utterances],
            "topic": ["technology" for _ in utterances],
        }
        tables.append(root / "main" / f"{part}-00000-of-00001.parquet")
        tables[-1].parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), tables[-1])
    return Miniature(
        ["corpus=ascend", f"corpus.root={root}"],
        {
            "train": {"ascend-train-00000": ("我觉得IT'S很好", "cmn")},
            "valid": {"ascend-validation-00000": ("对啊", "cmn")},
            "test": {
                "ascend-test-00000": ("THAT IS RIGHT", "cmn"),
                "ascend-test-00001": ("没有PROBLEM", "cmn"),
            },
        },
        {("ascend-train-00001", "empty_text")},
        tables,
    )


def seame(root: Path) -> Miniature:
    corpus, lists = root / "SEAME", root / "lists"
    for kind, recording in (
        ("conversation", "01NC01FBX_0101"),
        ("interview", "NI02MAX_0101"),
        ("interview", "UI03FAZ_0101"),
    ):
        noise(corpus / kind / "audio" / f"{recording}.flac", 6.0, format="FLAC")
    write(
        corpus / "conversation" / "transcript" / "phaseI" / "01NC01FBX_0101.txt",
        "01NC01FBX_0101\t500\t2000\t我 want 这个 (ppl)",
        "01NC01FBX_0101\t2100\t2900",
        "01NC01FBX_0101\t3000\t4500\t<v-noise>",
    )
    interview = corpus / "interview" / "transcript"
    write(interview / "phaseI" / "NI02MAX_0101.txt", "NI02MAX_0101\t0\t1500\t旧的")
    write(
        interview / "phaseII" / "NI02MAX_0101.txt",
        "NI02MAX_0101\t2500\t4000\tCS\tokay 可以",
        "NI02MAX_0101\t500\t2000\tZH\t没有 啊",
    )
    write(interview / "phaseII" / "UI03FAZ_0101.txt", "UI03FAZ_0101\t1000\t2500\tEN\tｙes lah")
    return Miniature(
        [
            *("corpus=seame", f"corpus.root={corpus}", f"corpus.test_lists={lists}"),
            "corpus.valid_speakers=0",
        ],
        {
            "train": {"seame-01NC01FBX_0101-0000500-0002000": ("我WANT这个", "cmn")},
            "test": {
                "seame-NI02MAX_0101-0002500-0004000": ("OKAY可以", "cmn"),
                "seame-UI03FAZ_0101-0001000-0002500": ("YES LAH", "cmn"),
            },
        },
        {
            ("seame-01NC01FBX_0101-0003000-0004500", "empty_after_normalisation"),
            ("seame-NI02MAX_0101-0000500-0002000", "speaker_overlap"),
        },
        [
            write(lists / "devman" / "text", "ni02m-ni02max_0101-00251-00398 okay 可以"),
            write(lists / "devsge" / "text", "ui03f-ui03faz_0101-00100-00250 yes lah"),
        ],
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
    translated = {
        "utt_id": ["w1", "w9"],
        "label": ["你好。", "没有"],
        "audio": [sound, other],
        "task": ["ast"] * 2,
    }
    pyarrow.parquet.write_table(pyarrow.table(translated), table.with_name("ast.parquet"))
    return Miniature(
        ["corpus=wu_bench", f"corpus.root={root}"],
        {"test": {"wubench-w1": ("侬好", "wuu"), "wubench-w2": ("吃饭OK", "wuu")}},
        {("wubench-w3", "empty_text"), ("wubench-w3", "unreadable_audio")},
        [table],
    )
