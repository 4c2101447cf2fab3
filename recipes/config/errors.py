"""How text that others wrote is shown, and messages in one line. Nothing here imports torch."""

from __future__ import annotations

import errno
import re
import sysconfig
import traceback
import unicodedata
from pathlib import Path

from plugins.errors import RecipeError

PROJECT = Path(__file__).resolve().parents[2]
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of Unicode that steer a terminal, or show nothing
LONGEST = 1000  # letters of a message
NO_MEMORY = re.compile(r"(can't|cannot|unable to|failed to) allocate|out of memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)
RUNS = "=+-@\t\r\n＝＋－＠"  # with which a cell begins that a spreadsheet runs


def printable(text: str, keep: str = "") -> str:
    """A text without what steers a terminal or hides in it: escapes, line breaks, changes of direction, halves of letters.

    Args:
        text: from anywhere.
        keep: such letters that may stay, as "\\n\\t".
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep else _shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in HIDDEN:
        return letter
    return " " if letter.isspace() else "\ufffd"


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks, or its kind where it has none."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its kind where it has none."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])


def of_own_code(error: BaseException, own: Path | None = None) -> str:
    """What an exception in a user's own code says, behind the last of its lines: `mine.py, line 3: KeyError: 'x'`.

    Args:
        error: of which the traceback is known.
        own: a file, or a folder, that is the user's own wherever it lies, such as that of an installed package.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {error.msg}"
    kind = type(error).__name__
    place = own_place(error, own)
    return f"{place}{kind}: {first_line(error)}" if str(error) else f"{place}{kind}"


def own_place(error: BaseException, own: Path | None = None) -> str:
    """The last line of a user's own code that has led to an exception, `mine.py, line 3: `; empty where none has."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_own(frame.filename) or (own is not None and Path(frame.filename).is_relative_to(own))
    ]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""


def _is_own(file: str) -> bool:
    """Whether a file is neither ours nor Python's nor installed."""
    path = Path(file)
    libraries = {"site-packages", "dist-packages"} & {*path.parts} or path.is_relative_to(sysconfig.get_path("stdlib"))
    return (
        path.suffix == ".py"
        and not libraries
        and not any(path.is_relative_to(PROJECT / name) for name in ("recipes", "plugins"))
    )


def shortened(text: str) -> str:
    """A message without its middle where it is very long."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


def to_cell(value: object) -> object:
    """A value as a cell of a csv file: a text that a spreadsheet would run has an apostrophe before it; numbers stay."""
    if not isinstance(value, str) or not value.startswith((*RUNS, "'")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """The text that :func:`to_cell` has made a cell of."""
    return text[1:] if text.startswith("'") else text


def is_mistake(error: BaseException) -> bool:
    """Whether an exception is a mistake of the user's."""
    return isinstance(error, RecipeError) or (
        isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    )  # names are typed


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """The error about memory that an error is, or comes from; None where there is none."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
        if named or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return error
        if isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)):
            return error
        error = error.__cause__ or error.__context__
    return None
