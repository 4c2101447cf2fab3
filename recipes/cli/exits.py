"""The end of a command: its exit code, and one line for a mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from plugins.errors import RecipeError
from recipes.cli.printing import NotPrinted, expect_printed, make_safe
from recipes.cli.version import asked_version, versions
from recipes.config.environment import keep_readable
from recipes.config.errors import is_mistake, one_line, shortened
from recipes.config.invoked import as_typed
from recipes.launch import failures
from recipes.run import memory

MISTAKE, FAILED, INTERRUPTED = 2, 1, 130


def run_command(command: Callable[[list[str]], int], words: Sequence[str] | None) -> int:
    """The exit code of a command with its words; each tells its version."""
    found = given(words)
    if asked_version(found):
        print(versions(), end="")
        expect_printed()
        return 0
    return command(found)


def given(words: Sequence[str] | None) -> list[str]:
    """The words of a command; those that no file could hold are refused."""
    found = list(sys.argv[1:] if words is None else words)
    for word in found:
        if not word.isascii() and word.encode(errors="ignore").decode() != word:
            raise RecipeError(f"{ascii(word)[1:-1]} is no text in UTF-8: type it in other letters")
    return found


def exit_with(command: Callable[[], int]) -> None:
    make_safe()
    keep_readable()
    try:
        code = _code_of(command)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (failures.RankError, NotPrinted, memory.OutOfMemory) as error:
        print(as_typed(f"error: {error}"), file=sys.stderr)
        code = FAILED
    except Exception as error:
        if not is_mistake(error):
            raise
        print(as_typed(f"error: {shortened(one_line(error))}"), file=sys.stderr)
        code = MISTAKE
    if code:
        sys.exit(code)


def _code_of(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as ended:
        if ended.code:
            raise
    expect_printed()  # what ends by itself, and well, is a help of argparse's or Hydra's
    return 0
