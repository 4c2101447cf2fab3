"""What an error advises to type, as a command that can be run."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence

HINT = re.compile(r"\b(did you mean|write|add|type) ('[^']+'|--\w+ [^\s';:?]+|[^\s';:]+(?: [^\s';:,]+=[^\s';:,]+)*)")
COMMAND = re.compile(r"python (?:[^\s]*/)?(train|evaluate|compare)\.py( [^;)]*)")  # wherever it lies
FOR_THE_READER = re.compile(r"\b[A-Z_]{3,}\b|…")  # a word that stands for another one: FOLDER


def commands(script: str, words: Sequence[str], message: str) -> Iterator[tuple[str, list[str]]]:
    """The commands that a message advises, with the words that led to it.

    Args:
        script: that was run.
        words: it was given.
        message: it has answered.
    """
    for name, tail in COMMAND.findall(message):
        tail = re.sub(r" (tells|to) .*", "", tail)
        if not FOR_THE_READER.search(tail):
            yield f"{name}.py", shlex.split(tail)
    for verb, hint in HINT.findall(COMMAND.sub("", message)):
        hint = hint.rstrip("?,.")
        if FOR_THE_READER.search(hint) or not re.search(r"[=.\-/]", hint) or "download" in hint:
            continue
        yield script, [*words, *shlex.split(hint)] if verb == "add" else replaced(words, shlex.split(hint), message)


def replaced(words: Sequence[str], hint: Sequence[str], message: str) -> list[str]:
    """The words with the hint in the place of those to which it is closest: whole words, or the key or the value of one."""
    text = " ".join(hint)
    variants = []
    named = [start for start, word in enumerate(words) if word.lstrip("+") in message] or range(len(words))
    for start in named:
        for end in range(start + 1, len(words) + 1):
            variants.append((" ".join(words[start:end]), [*words[:start], *hint, *words[end:]]))
        key, equals, value = words[start].partition("=")
        if equals and "=" not in text:
            variants.append((key, [*words[:start], f"{text}={value}", *words[start + 1 :]]))
            variants.append((value, [*words[:start], f"{key}={text}", *words[start + 1 :]]))
    return max(variants, key=lambda variant: difflib.SequenceMatcher(None, variant[0], text).ratio())[1]
