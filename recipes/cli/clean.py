"""The command `python -m recipes clean FOLDERS keep=best`: lists, then removes, what finished runs need no more. Nothing here imports torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from plugins.errors import RecipeError
from recipes.cli.exits import exit_with, run_command
from recipes.cli.printing import expect_printed
from recipes.config.invoked import invocation
from recipes.config.quoting import path_word
from recipes.config.spelling import suggest
from recipes.store.spare import KEEP, Spare, remove, spare

HELP = """\
python -m recipes clean FOLDER ... [keep=best|last|nothing] [yes=true]

List what finished runs need no more, then remove it once you have said yes.

  keep=best     the weights that validated best stay, to evaluate and to predict (the default)
  keep=last     the state from which a longer training goes on stays, too, and with it all weights
  keep=nothing  no weights stay; results, curves and reports do, and can be compared
  yes=true      remove without asking

Runs that are not finished keep everything."""


def main(words: Sequence[str] | None = None) -> None:
    """`clean`: ends the process with an exit code unless all went well."""
    exit_with(lambda: run_command(_clean, words))


def _clean(words: list[str]) -> int:
    if "--help" in words or "-h" in words:
        print(HELP.replace("python -m recipes clean", invocation("clean")))
        expect_printed()
        return 0
    folders, keep, yes = _read(words)
    from recipes.compare.runs import find

    found = spare(find(folders), keep)
    there = [each for each in found if each.files]
    for each in there:
        print(f"{in_bytes(each.size):>10}  {each.folder}  {', '.join(path.name for path in each.files)}")
    _tell_kept(found)
    total = in_bytes(sum(each.size for each in there))
    if not there:
        print(f"nothing to remove in {len(found)} run{'s' if len(found) != 1 else ''}")
        expect_printed()
        return 0
    if not (yes or _agreed(there, total)):
        again = " ".join([invocation("clean"), *map(path_word, folders), f"keep={keep}", "yes=true"])
        print(f"nothing is removed; to remove {total} type {again}")
        expect_printed()
        return 0
    done = remove(there)
    _tell_kept(done)
    gone = [each for each in done if each.files]
    print(f"removed {in_bytes(sum(each.size for each in gone))} of {len(gone)} run{'s' if len(gone) != 1 else ''}")
    expect_printed()
    return 0


def _read(words: Sequence[str]) -> tuple[list[Path], str, bool]:
    folders: list[Path] = []
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            raise RecipeError(f"there is no flag {word}; there is keep=, yes=true and --help")
        if not equals or Path(word).is_dir():
            folders.append(Path(word))
        elif name not in ("keep", "yes"):
            raise RecipeError(f"clean has no setting {name}; {suggest(name, ['keep', 'yes'], '{}=')}")
        elif name in given:
            raise RecipeError(f"{name} is given twice, {name}={given[name]} and {word}: leave one out")
        else:
            given[name] = value
    if not folders:
        raise RecipeError(f"expected folders of runs: {invocation('clean')} FOLDER keep=best")
    keep, yes = given.get("keep", "best"), given.get("yes", "false")
    if keep not in KEEP:
        raise RecipeError(f"keep must be one of best, last, nothing, got {keep}")
    if yes not in ("true", "false"):
        raise RecipeError(f"yes must be true or false, got {yes}")
    return folders, keep, yes == "true"


def _agreed(there: Sequence[Spare], total: str) -> bool:
    """Whether whoever sits at the terminal wants it; nobody does where there is none."""
    if not sys.stdin.isatty():
        return False
    print(f"remove {total} of {len(there)} run{'s' if len(there) != 1 else ''}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell_kept(spares: Sequence[Spare]) -> None:
    for each in spares:
        if each.reason:
            print(f"{'kept':>10}  {each.folder}  {each.reason}")


def in_bytes(size: int) -> str:
    """A number of bytes in words."""
    number, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
