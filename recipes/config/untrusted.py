"""The one way in which files are read that somebody else may have written: run folders, sweeps, what lies in them.

Nothing is followed out of its folder, nothing is read without a limit, no content decides by its type what happens next, and
whatever is wrong is told in one line that names the file. `docs/trust.md` tells what is trusted. Nothing here imports torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from plugins.errors import RecipeError
from recipes.config.errors import printable
from recipes.config.places import open_file

LARGEST = 1_000_000  # bytes of a file that a person might write
LARGEST_RECORD = 100_000_000  # bytes of a file that grows with a run, such as metrics.csv
DEEPEST = 40  # mappings and lists inside of each other
MOST = 5_000_000  # values in a file, such as a confusion matrix of a thousand classes
LONGEST_NUMBER = 2**63


# ------------------------------------------------------------------ where something lies


# ------------------------------------------------------------------ reading


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """What stands in a file, if it is one, and not larger than `most` bytes.

    Raises:
        FileNotFoundError: it is not there.
        RecipeError: it cannot be read, is something else than a file, or too large.
    """
    try:
        with open(open_file(path), "rb") as file:
            content = file.read(most + 1)
    except (FileNotFoundError, RecipeError):
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"{path} cannot be read: {reason}") from None
    if len(content) > most:
        raise RecipeError(f"{path} is refused: it is larger than {most:,} bytes")
    return content


def read_text(path: Path, most: int = LARGEST) -> str:
    """The text of a file."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} cannot be read: expected text in UTF-8, byte {error.start} is none") from None


def read_json(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """A JSON file that must hold a mapping; its texts come without control characters, NaN and infinity as null.

    Raises:
        FileNotFoundError: it is not there.
        RecipeError: it is not what we write.
    """
    text = read_text(path, most)
    try:
        content = json.loads(text, parse_constant=lambda name: None, object_pairs_hook=_pairs)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path} cannot be read: {error.msg}, line {error.lineno}") from None
    except RecursionError:
        raise RecipeError(f"{path} is refused: it is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    return _mapping(path, content)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in a mapping")
    return found


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Hydra reads it: `1e-3` is a number, a date is a text, a key stands once."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping in which no key stands twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise ValueError(f"a key stands twice in a mapping, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, most: int = LARGEST, expected: str = "keys with values", clean: bool = True) -> dict[str, Any]:
    """A YAML file of plain values that must hold a mapping, empty where the file is; interpolations are left alone.

    Args:
        path: the file.
        most: bytes.
        expected: what must be in it, for the error.
        clean: whether texts come without control characters.

    Raises:
        FileNotFoundError: it is not there.
        RecipeError: it cannot be read, or names anything: no tags, no aliases.
    """
    text = read_text(path, most)
    try:
        _check_events(path, text)
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{path} cannot be read: {error.problem or 'it is no YAML'}{line}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} cannot be read: {getattr(error, 'reason', None) or 'it is no YAML'}") from None
    except RecursionError:
        raise RecipeError(f"{path} is refused: it is nested deeper than {DEEPEST} levels") from None
    except RecipeError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError) as error:  # such as a number of 5,000 digits
        raise RecipeError(f"{path} cannot be read: {error}") from None
    return _mapping(path, {} if content is None else content, expected, clean)


def _check_events(path: Path, text: str) -> None:
    """Refuse what makes values out of other things than values, before any are made."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise RecipeError(f"{path} is refused: it has no aliases when we write it")
        if getattr(event, "tag", None) is not None:
            raise RecipeError(f"{path} cannot be read: only plain values are allowed, found the tag {event.tag}")
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecipeError(f"{path} is refused: it is nested deeper than {DEEPEST} levels")
        if documents > 1:
            raise RecipeError(f"{path} is refused: it holds more than one document")


def _mapping(path: Path, content: Any, expected: str = "keys with values", clean: bool = True) -> dict[str, Any]:
    """What was read, if it is a mapping of plain values and not too much of it."""
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold {expected}, not {_in_words(content)}")
    try:
        left = [MOST]
        return _plain(content, 0, left, clean)
    except ValueError as error:
        raise RecipeError(f"{path} is refused: {error}") from None


def _plain(value: Any, depth: int, left: list[int], clean: bool) -> Any:
    left[0] -= 1
    if depth > DEEPEST or left[0] < 0:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels" if depth > DEEPEST else f"it has over {MOST:,} values")
    if isinstance(value, dict):
        if names := [name for name in value if not isinstance(name, str)]:
            raise ValueError(f"the key {printable(str(names[0]))} is no text")
        return {printable(name) if clean else name: _plain(inner, depth + 1, left, clean) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, depth + 1, left, clean) for inner in value]
    if isinstance(value, str):
        return printable(value, "\n\t") if clean else value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= LONGEST_NUMBER:
        raise ValueError("a number in it is too large")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"it holds {_in_words(value)}")


def _in_words(value: Any) -> str:
    names = {list: "a list", dict: "a mapping", str: "a text", bool: "true or false", type(None): "null", bytes: "bytes"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "a value of another kind")
