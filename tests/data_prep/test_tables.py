import csv
import gzip
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from data_prep.tables import Columns, read_table
from zipformer.errors import UserError

HEADER = "path\ttext\tdialect\tspeaker\n"


def table(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_know_their_lines(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, HEADER + 'a.wav\t說"好\tyue\tA\n\nb.wav\t 不 \twuu\t\n'), Columns())
    assert [(row["path"], row["text"], row.get("speaker"), row.origin) for row in rows] == [
        ("a.wav", '說"好', "A", "table.tsv:2"),
        ("b.wav", "不", None, "table.tsv:4"),
    ]
    assert rows[0].get("site") is None


def test_other_names_delimiters_and_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path, b"\xef\xbb\xbfFile,Transcript,Lang\r\na.wav,\xe5\xa5\xbd,yue\r\n")
    (row,) = read_table(path, Columns(path="File", text="Transcript", dialect="Lang"), delimiter=",")
    assert dict(row.values) == {"path": "a.wav", "text": "好", "dialect": "yue"}


def test_rows_can_be_filtered(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + "a\tA\tyue\t1\nb\tB\twuu\t2\nc\tC\tyue\t2\n")
    assert [row["path"] for row in read_table(path, Columns(), keep={"dialect": ["yue"]})] == ["a", "c"]
    assert [
        row["path"] for row in read_table(path, Columns(), keep={"dialect": ["yue"], "speaker": ["2"]})
    ] == ["c"]
    with pytest.raises(UserError, match=r"no row is left by corpus\.keep"):
        read_table(path, Columns(), keep={"dialect": ["hak"]})
    with pytest.raises(UserError, match=r"corpus\.keep names the columns \['lang'\]"):
        read_table(path, Columns(), keep={"lang": ["hak"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "a\tA\tyue\t1\nb\tB\twuu\n", r"table\.tsv:3: 3 values instead of 4"),
        (HEADER + "a\tA\tyue\t1\t2\n", r"table\.tsv:2: 5 values instead of 4"),
        (HEADER + "\tA\tyue\t1\n", r"table\.tsv:2: no audio path in column 'path'"),
        (
            "path\tdialect\na\tyue\n",
            r"table\.tsv:1: .*no column 'text' \(corpus\.columns\.text\).*transcript",
        ),
        ("path,text,dialect\n", r"separated by '\\t', are \['path,text,dialect'\]"),
        ("path\tpath\ttext\tdialect\n", r"\['path'\] are there more than once"),
        (HEADER, "no row is left$"),
        ("", r"table\.tsv is empty; it must have a header"),
        (
            HEADER.encode() + "a\t我\tyue\t1\n".encode("gbk"),
            r"table\.tsv:2: not UTF-8.*save the table as UTF-8",
        ),
    ],
)
def test_faults_are_named_with_their_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_table(table(tmp_path, content), Columns())


def test_a_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'place' \(corpus\.columns\.site\)"):
        read_table(table(tmp_path, HEADER + "a\tA\tyue\t1\n"), Columns(site="place"))


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.tsv does not exist; set corpus\.tsv"):
        read_table(tmp_path / "nowhere.tsv", Columns())


# The same two rows, however a table is written.

TWO_ROWS = HEADER + "a.wav\t今天天气好\tcmn\tA\nb.wav\t聽日落雨\tyue\tB\n"
TWO = [("a.wav", "今天天气好", "cmn", "A"), ("b.wav", "聽日落雨", "yue", "B")]
FIELDS = ("path", "text", "dialect", "speaker")


@pytest.mark.parametrize(
    "content",
    [
        TWO_ROWS.encode("utf-8-sig"),
        TWO_ROWS.encode("utf-16"),
        TWO_ROWS.encode("utf-16-le"),
        TWO_ROWS.encode("utf-16-be"),
        TWO_ROWS.encode("utf-32"),
        gzip.compress(TWO_ROWS.encode(), mtime=0),
        TWO_ROWS.replace("\n", "\r\n").encode(),
        TWO_ROWS.replace("\n", "\r\r\n").encode(),
        TWO_ROWS.replace("\n", "\r").encode(),
        TWO_ROWS.replace("\n", "\t\n").encode(),
        TWO_ROWS.replace("\n", "\t\n").replace("speaker\t", "speaker").encode(),
        TWO_ROWS.replace("path\ttext", "Path\tTEXT").encode(),
        TWO_ROWS.replace("\n", "\n\n").encode(),
        TWO_ROWS.removesuffix("\n").encode(),
        ("\t" + TWO_ROWS.replace("\na", "\n0\ta").replace("\nb", "\n1\tb")).encode(),
    ],
)
def test_what_needs_no_guess_is_read(content: bytes, tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, content), Columns())
    assert [tuple(row[name] for name in FIELDS) for row in rows] == TWO


@pytest.mark.parametrize("encoding", ["gb18030", "big5hkscs"])
def test_another_encoding_is_shown_and_can_be_set(encoding: str, tmp_path: Path) -> None:
    path = table(tmp_path, (HEADER + "a\t佢哋未嚟\tyue\t1\n").encode(encoding))
    with pytest.raises(UserError, match=rf"corpus\.encoding.*{encoding} if the line.*佢哋未嚟"):
        read_table(path, Columns())
    (row,) = read_table(path, Columns(), encoding=encoding)
    assert row["text"] == "佢哋未嚟"
    with pytest.raises(UserError, match=r"corpus\.encoding is 'gbx', which Python does not know"):
        read_table(path, Columns(), encoding="gbx")


def test_long_values_are_read_and_the_limit_of_csv_stays(tmp_path: Path) -> None:
    long, before = "好" * 200_000, csv.field_size_limit()
    (row,) = read_table(table(tmp_path, HEADER + f"a\t{long}\tyue\t1\n"), Columns())
    assert row["text"] == long
    (row,) = read_table(table(tmp_path, f'path,text,dialect\na,"{long}",yue\n'), Columns(), delimiter=",")
    assert row["text"] == long
    assert csv.field_size_limit() == before


def test_quotation_marks_of_csv(tmp_path: Path) -> None:
    path = table(tmp_path, 'path,text,dialect\na, "聽日,落""雨""",yue\nb,"聽\n日",yue\nc,說"好,yue\n')
    rows = read_table(path, Columns(), delimiter=",")
    assert [(row["text"], row.origin) for row in rows] == [
        ('聽日,落"雨"', "table.tsv:2"),
        ("聽 日", "table.tsv:3"),
        ('說"好', "table.tsv:5"),
    ]
    with pytest.raises(UserError, match=r"table\.tsv:2: 4 values instead of 3"):
        read_table(path, Columns(), delimiter=",", quoted=False)
    tabs = table(tmp_path, 'path\ttext\tdialect\na\t"b\tc"\tyue\n')
    with pytest.raises(UserError, match=r"table\.tsv:2: 4 values instead of 3 \(set corpus\.quoted=true"):
        read_table(tabs, Columns())
    assert read_table(tabs, Columns(), quoted=True)[0]["text"] == "b\tc"
    open_quote = table(tmp_path, 'path,text,dialect\na,好,yue\nb,"聽日,yue\nc,好,yue\n')
    with pytest.raises(UserError, match=r"table\.tsv:3: quotation marks that do not match.*quoted=false"):
        read_table(open_quote, Columns(), delimiter=",")


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_another_delimiter_is_recognised_and_its_remedy_works(delimiter: str, tmp_path: Path) -> None:
    path = table(tmp_path, TWO_ROWS.replace("\t", delimiter))
    with pytest.raises(UserError, match=r"corpus\.delimiter=") as error:
        read_table(path, Columns())
    setting = str(error.value).split("'")[-2]
    (override,) = OverridesParser.create().parse_overrides([setting])
    assert override.key_or_group == "corpus.delimiter"
    assert len(read_table(path, Columns(), delimiter=str(override.value()))) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "a\t我\0們\tyue\t1\n", r"table\.tsv:2: a NUL character"),
        (HEADER + "a\t我\tyue\t1\nb\t我\r們\tyue\t1\n", r"table\.tsv:3: a carriage return \(CR\) within"),
        (b"PAR1...", "is a Parquet file, not a table"),
        (b"PK\x03\x04...", "an Excel workbook"),
        (gzip.compress(TWO_ROWS.encode(), mtime=0)[:-8], "gzip file that is damaged or cut off"),
        (TWO_ROWS.replace("\t", "    "), "spaces must be replaced by tabs"),
        ("Path\tPATH\ttext\tdialect\n", r"no column 'path'"),
    ],
)
def test_what_cannot_be_read_is_named(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_table(table(tmp_path, content), Columns())


def test_a_folder_and_an_impossible_delimiter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name the file"):
        read_table(tmp_path, Columns())
    for delimiter in ("", ",,"):
        with pytest.raises(UserError, match=r"corpus\.delimiter is .* it must be one character"):
            read_table(table(tmp_path, TWO_ROWS), Columns(), delimiter=delimiter)
    assert len(read_table(table(tmp_path, TWO_ROWS), Columns(), delimiter="\\t")) == 2
