"""How values, words and paths are written so that a shell and Hydra read them back. Nothing here imports torch."""

from __future__ import annotations

import math
import re


def show(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower() if value is not None else "null"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("inf", ".inf").replace("nan", ".nan")  # as in YAML, and in the comments
    return str(value)


def quote(word: str) -> str:
    """A word for the shell, quoted where brackets or blanks would be taken amiss."""
    safe = word and all(letter.isalnum() or letter in "_-+=.,:/@%~^" for letter in word) and word[0] not in "~^"
    return word if safe else "'" + word.replace("'", "'\\''") + "'"


def path_word(path: object) -> str:
    """A path as a word for the shell, which no command takes for a flag."""
    return quote(f"./{path}" if str(path).startswith("-") else str(path))


def quoted(path: object) -> str:
    """A path as Hydra's grammar takes it, whatever is in its name."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return str(QuotedString(str(path), Quote.double).with_quotes())


def typed(key: str, path: object) -> str:
    """`KEY=PATH` as it is typed in a shell, quoted for Hydra and for the shell where they would take it amiss."""
    text = str(path)
    if not re.fullmatch(r"[\w./:@+-]+", text, re.ASCII):
        text = quoted(text)
    return quote(f"{key}={text}")
