import csv
import io
import random

import numpy as np
import pytest

from plugins.base import RecipeError
from recipes.data import table as table_file
from recipes.data.columns import CATEGORICAL, NUMERIC, kind_of_column, look, read
from recipes.data.table import Table

MISSING = frozenset(["", "NA"])


@pytest.fixture
def file(tmp_path):
    """Writes text or bytes to a file, and opens it as a table."""

    def write(content, **arguments):
        path = tmp_path / "own.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Table(path, **arguments)

    return write


def test_rows_are_what_pythons_writer_wrote(file, monkeypatch):
    """Random cells with quotes, separators and line breaks, in pieces of a few rows."""
    monkeypatch.setattr(table_file, "CELLS", 7)
    draw = random.Random(0)
    letters = 'ab1,;"\n\té .'
    rows = [["".join(draw.choices(letters, k=draw.randrange(5))).strip() or "x" for _ in range(3)] for _ in range(200)]
    for separator in (",", ";", "\t"):
        text = io.StringIO()
        csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *rows])
        table = file(text.getvalue(), separator=separator)
        lines, found = [], {"c": [], "a": []}
        for piece, (c, a) in table.columns(["c", "a"]):
            assert len(piece) <= 2
            lines += piece
            found["c"] += c
            found["a"] += a
        assert found == {"c": [row[2] for row in rows], "a": [row[0] for row in rows]}
        starts = np.cumsum([2] + [1 + sum(cell.count("\n") for cell in row) for row in rows])[:-1]
        assert lines == starts.tolist()


def test_mark_blanks_and_empty_lines_do_not_count(file):
    table = file(b'\xef\xbb\xbf a , b\r\n\r\n 1 , "x, y" \r\n\n2,  z'.replace(b'" \r', b'"\r'))
    assert table.names == ["a", "b"]
    assert list(table.columns(["b", "a"])) == [([3, 5], [["x, y", "z"], ["1", "2"]])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "own.csv is empty: its first line must name the columns"),
        ("\n \n", "own.csv is empty"),
        ("a,b,a\n1,2,3\n", "line 1 names the column a twice"),
        ("a;b\n1;2\n", "one column, which holds ;: type data.separator=semicolon"),
        ("a\tb\n1\t2\n", "one column, which holds tabs: type data.separator=tab"),
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, expected 2"),
        ('a,b\n"1\n1",2\n1\n', "line 4 has 1 cells, expected 2"),
        ('a,b\n1,2\n3,"x\n', "the row of line 3 cannot be read: unexpected end of data"),
        ('a,b\n1,2\n3,"x"y\n', "the row of line 3 cannot be read"),
        ("a,b\n1,2\n3,é\n".encode("latin-1"), "line 3 is no UTF-8 .byte 0xe9 at place 3.: save the file as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1 (is no UTF-8|holds a zero byte)"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1 holds a zero byte"),
        ("a,b\n1," + "x" * 200_000, "the row of line 2 cannot be read: field larger"),
    ],
)
def test_broken_files_are_one_line(file, content, message):
    with pytest.raises(RecipeError, match=message) as error:
        list(file(content).rows())
    assert "own.csv" in str(error.value) and "\n" not in str(error.value)


def test_no_file_and_a_folder_are_told(tmp_path):
    for path, told in ((tmp_path / "none.csv", "no file .*"), (tmp_path, "is a folder")):
        with pytest.raises(RecipeError, match=f"{told}: data.path must be a csv file"):
            Table(path)


def test_a_header_of_too_many_columns_is_not_read(file, tmp_path, monkeypatch):
    names = ",".join(f"c{number}" for number in range(10_000))
    assert len(file(names + "\n").names) == 10_000
    read = []
    monkeypatch.setattr(Table, "_text", lambda self, line, number: read.append(line))
    with pytest.raises(RecipeError, match="more than 10,000 columns"):
        file(names + ",more\n")
    (tmp_path / "own.csv").write_bytes(b"c," * 10_000_000)
    with pytest.raises(RecipeError, match="more than 10,000 columns"):
        Table(tmp_path / "own.csv")
    assert read == []


def test_a_line_without_an_end_is_not_read(file, monkeypatch):
    monkeypatch.setattr(table_file, "LONGEST_LINE", 100)
    with pytest.raises(RecipeError, match="line 2 is longer than 100 bytes"):
        list(file("a,b\n1," + "2" * 200).rows())


def test_names_in_messages_stay_on_their_line(file):
    with pytest.raises(RecipeError) as error:
        file('"a\nb\x1b[2J","a\nb\x1b[2J"\n')
    assert str(error.value).isprintable()


def kinds(table):
    looks = look(table, table.names, MISSING)
    return {name: kind_of_column(column, f"own.csv: column {name}", "drop it") for name, column in looks.items()}


def test_columns_are_numeric_where_all_cells_are_numbers(file):
    table = file("a,b,c,d,e\n1,x,1e3,1_0,\n-.5,2,NA, 7 ,NA\n,NA,+4,5,3\n")
    assert kinds(table) == dict(a=NUMERIC, b=CATEGORICAL, c=NUMERIC, d=CATEGORICAL, e=NUMERIC)
    looks = look(table, ["a", "e"], MISSING)
    assert (looks["a"].holes, looks["a"].hole_lines, looks["e"].hole_lines) == (1, [4], [2, 3])
    lines, values = read(table, {"e": NUMERIC, "b": CATEGORICAL, "c": CATEGORICAL}, MISSING)
    assert lines.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(values["e"].numbers, [np.nan, np.nan, 3])
    np.testing.assert_array_equal(values["b"].numbers, [1, 0, np.nan])
    assert (values["b"].words, values["e"].words) == (["2", "x"], None)
    assert values["c"].words == ["+4", "1e3"] and values["c"].numbers.tolist()[::2] == [1, 0]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["2020-01-31"] * 9 + ["soon"],
            "column a holds dates, such as 2020-01-31 in line 2: write them as numbers, .* or drop it",
        ),
        (["2020-01-31 12:00"] * 3, "holds dates"),
        (["31.12.2020"] * 3, "holds dates"),
        (["1,5"] * 10, "holds numbers with a decimal comma"),
        (["1"] * 18 + ["x", "y"], "numbers but for 2 of 20 cells .x in line 20, y in line 21.: correct these"),
        (["1"] * 90 + ["-"] * 10, "but for 10 of 100 cells .*line 92.*, …"),
        ([""] * 3, "has no value in any of its 3 rows: drop it"),
    ],
)
def test_columns_that_cannot_be_right_are_refused(file, cells, message):
    table = file("a,b\n" + "".join(f'"{cell}",1\n' for cell in cells))
    with pytest.raises(RecipeError, match=message) as error:
        kinds(table)
    assert "\n" not in str(error.value)


def test_columns_that_are_nearly_refused(file):
    assert kinds(file("a,b\n" + "1,1\n" * 17 + "x,2020-01-31\n" * 2)) == {"a": CATEGORICAL, "b": CATEGORICAL}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("inf", "column a, line 3: inf is no finite number"),
        ("nan", "column a, line 3: nan is no finite number: correct it, or name it in data.missing"),
        ("1e400", "line 3: 1e400 is no finite number"),
        ("-4e38", "line 3: -4e38 is beyond the numbers of 32 bits"),
        ("x", "line 3: x is no number, and this column holds numbers"),
    ],
)
def test_numbers_must_be_such_of_32_bits(file, cell, message):
    table = file(f"a,b\n1,2\n{cell},NA\n3,4\n")
    assert read(table, {"b": NUMERIC}, MISSING)[1]["b"].numbers[0] == 2
    with pytest.raises(RecipeError, match=f"own.csv: .*{message}"):
        read(table, {"b": NUMERIC, "a": NUMERIC}, MISSING)


def test_a_header_alone_is_refused(file):
    table = file("a,b\n")
    for ask in (lambda: look(table, ["a"], MISSING), lambda: read(table, {"a": NUMERIC}, MISSING)):
        with pytest.raises(RecipeError, match="own.csv has no rows below its header"):
            ask()
