"""A file of rows and columns as text: its header, its rows, and where each of them stands."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from plugins.base import RecipeError, expect
from recipes.config.errors import printable
from recipes.config.quoting import quote, quoted
from recipes.config.spelling import nearest

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
MISSING = (  # cells that are holes, as empty ones are: what pandas reads as such, but None and NULL, which name categories too, and ?
    *("NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "null", "?"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
MOST_COLUMNS = 10_000
LONGEST_LINE = 8 * 2**20  # bytes
CELLS = 50_000  # that are text at a time
SHOWN = 20  # columns that a message lists, and
LONGEST_CELL = 40  # letters of a cell that it shows


class Table:
    """A text file in UTF-8 whose first line names its columns; its rows are read as they are asked for.

    Blanks around a cell do not count, nor do empty lines.

    Args:
        path: the file.
        separator: what stands between two cells, one letter.
        of: the parameter that gives the path.

    Attributes:
        names: of the columns, each of them another.
        unnamed: those of them that the header leaves empty, as `Unnamed: 0`, which is what pandas calls them.

    Raises:
        RecipeError: no file, no header, more than 10,000 columns, names that are given twice; when rows are read: a line that is no UTF-8,
            has another number of cells than the header, or is not closed.
    """

    def __init__(self, path: Path, separator: str = ",", of: str = "data.path") -> None:
        self.path, self.separator = path, separator
        if not path.is_file():  # a pipe would be waited for, and is read twice
            there = f"{path} is a folder" if path.is_dir() else f"no file {path.absolute()}"
            raise RecipeError(f"{there}: {of} must be a csv file, whose first line names the columns")
        header = next(self._all_rows(), None)
        if header is None:
            raise RecipeError(f"{path} is empty: its first line must name the columns")
        self.unnamed = [f"Unnamed: {place}" for place, name in enumerate(header[1]) if not name]
        self.names = [name or f"Unnamed: {place}" for place, name in enumerate(header[1])]
        if len(self.names) == 1:
            self._expect_separator()
        if twice := next((name for name, count in Counter(self.names).items() if count > 1), None):
            raise RecipeError(f"{path}: line {header[0]} names the column {shown(twice)} twice: give each another name")

    def expect_columns(self, names: Sequence[str], of: str) -> None:
        """Refuse names that no column has.

        Args:
            names: of columns.
            of: the parameter that gives them.
        """
        there = set(self.names)
        for name in names:
            if name not in there:
                raise RecipeError(f"{of}: {self.path} has no column {shown(name)}: {self._instead(name)}")

    def columns(self, names: Sequence[str]) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Some columns, many rows at a time: the lines where the rows begin, and the cells of each column.

        Args:
            names: of columns that there are, in any order.
        """
        place = {name: number for number, name in enumerate(self.names)}
        places, size = [place[name] for name in names], max(1, CELLS // len(self.names))
        lines: list[int] = []
        rows: list[list[str]] = []
        for line, row in self.rows():
            lines.append(line)
            rows.append(row)
            if len(rows) == size:
                yield lines, [[row[place].strip() for row in rows] for place in places]
                lines, rows = [], []
        if rows:
            yield lines, [[row[place].strip() for row in rows] for place in places]

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows below the header, each with the line where it begins."""
        rows = self._all_rows()
        next(rows)
        for line, cells in rows:
            if len(cells) != len(self.names):
                raise RecipeError(
                    f"{self.path}: line {line} has {len(cells)} cells, expected {len(self.names)} as in the header: put cells that hold "
                    f"{shown(self.separator)} or a line break into double quotes"
                )
            yield line, cells

    def _all_rows(self) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(self._lines(), delimiter=self.separator, skipinitialspace=True, strict=True)
        begins, is_header = 1, True
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise RecipeError(
                    f"{self.path}: the row of line {begins} cannot be read: {error}; a double quote within a quoted cell is written "
                    f"twice"
                ) from None
            line, begins = begins, reader.line_num + 1
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                yield line, [cell.strip() for cell in cells] if is_header else cells
                is_header = False

    def _lines(self) -> Iterator[str]:
        """The lines, each of them read to a length that a header of too many columns does not reach."""
        separator = self.separator.encode()
        try:
            with self.path.open("rb") as file:
                number = 0
                while line := file.readline(LONGEST_LINE):
                    number += 1
                    if number == 1 and line.count(separator) >= MOST_COLUMNS:
                        raise RecipeError(
                            f"{self.path} has more than {MOST_COLUMNS:,} columns: an npz file (data=npz) holds so many inputs"
                        )
                    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                        raise RecipeError(f"{self.path}: line {number} is longer than {LONGEST_LINE:,} bytes, as no row is")
                    yield self._text(line, number)
        except OSError as error:
            raise RecipeError(f"{self.path} cannot be read: {error.strerror}") from None

    def _text(self, line: bytes, number: int) -> str:
        if b"\0" in line:
            raise RecipeError(
                f"{self.path}: line {number} holds a zero byte, as no text in UTF-8 does: save the file as csv in UTF-8"
            )
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"{self.path}: line {number} is no UTF-8 (byte {line[error.start]:#x} at place {error.start + 1}): save the file as UTF-8"
            ) from None

    def _expect_separator(self) -> None:
        for other, name in ((",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "'|'")):
            if other in self.names[0]:
                told = {"\t": "tabs"}.get(other, other)
                typed = f'"data.separator={name}"' if other == "|" else f"data.separator={name}"
                raise RecipeError(f"{self.path}: the header has one column, which holds {told}: type {typed}")

    def _instead(self, name: str) -> str:
        if close := nearest(name, self.names):
            return f"did you mean {shown(close)}?"
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        return f"there is {', '.join(map(shown, self.names[:SHOWN]))}{more}"


def separator_of(given: str) -> str:
    """The letter that `data.separator` means: `comma`, `semicolon`, `tab`, or any other letter."""
    separator = SEPARATORS.get(given, given)
    single = isinstance(given, str) and len(separator) == 1 and separator.isascii() and separator not in '"\r\n'
    expect(single, "data.separator", "comma, semicolon, tab or one letter, no quote", given)
    return separator


def shown(cell: str) -> str:
    """A cell or a name in a message, of one line and not too long; in quotes where it is no word."""
    text = printable(cell if len(cell) <= LONGEST_CELL else f"{cell[:LONGEST_CELL]}…")
    return text if re.fullmatch(r"[\w.+-]+", text) else f'"{text}"'


def word(parameter: str, *names: str) -> str:
    """What to type to put columns into a list: `data.drop=[NAME]`, quoted for Hydra and for the shell."""
    return quote(f"{parameter}=[{','.join(name if _is_plain(name) else quoted(name) for name in names)}]")


def _is_plain(name: str) -> bool:
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*", name, re.ASCII)
    return plain is not None and name.lower() not in ("null", "true", "false", "nan", "inf")


def lines_in_words(lines: Sequence[int], count: int) -> str:
    """The first lines of so many: `lines 3, 8, 9 and 12 more`."""
    more = f" and {count - len(lines)} more" if count > len(lines) else ""
    return f"line{'s' if count > 1 else ''} {', '.join(map(str, lines))}{more}"
