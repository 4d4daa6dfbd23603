from pathlib import Path

import pytest

from data_prep.errors import PreparationError
from data_prep.tables import Columns, read_table

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
    with pytest.raises(PreparationError, match=r"no row is left by corpus\.keep"):
        read_table(path, Columns(), keep={"dialect": ["hak"]})
    with pytest.raises(PreparationError, match=r"corpus\.keep names the columns \['lang'\]"):
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
        ("", "no column 'path'"),
        (
            HEADER.encode() + "a\t我\tyue\t1\n".encode("gbk"),
            r"table\.tsv:2: not UTF-8.*save the table as UTF-8",
        ),
    ],
)
def test_faults_are_named_with_their_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(PreparationError, match=message):
        read_table(table(tmp_path, content), Columns())


def test_a_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(PreparationError, match=r"no column 'place' \(corpus\.columns\.site\)"):
        read_table(table(tmp_path, HEADER + "a\tA\tyue\t1\n"), Columns(site="place"))


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(PreparationError, match=r"nowhere\.tsv does not exist; set corpus\.tsv"):
        read_table(tmp_path / "nowhere.tsv", Columns())
