"""The command `compare.py`: run folders in; a table, notes, a figure and a report out.

Nothing here imports torch, and what takes time to import is imported only when runs are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from plugins.errors import RecipeError
from recipes.cli.exits import exit_with, run_command
from recipes.cli.printing import expect_printed
from recipes.compare.present import present
from recipes.config.invoked import as_typed, invocation
from recipes.config.quoting import quote
from recipes.config.spelling import nearest

if TYPE_CHECKING:
    pass

SWEEPS = "multirun"
DESCRIPTION = """\
Compare finished runs: those that differ in nothing but the seed are one group. Prints each group's mean over its seeds with
deviation and 95 % interval, its difference to a baseline, paired by seed, with an interval and a p-value corrected for
several comparisons, and what it costs in time and memory; and says what makes these numbers weaker than they look."""
EXAMPLES = """\
Examples
  python compare.py                                the last sweep below multirun/
  python compare.py outputs/a outputs/b            two runs, or folders that hold some
  python compare.py "Adam=outputs/a" "Adam with dropout=outputs/b"
  python compare.py multirun/DATE/TIME --baseline +regularizer=dropout
  python compare.py multirun/DATE/TIME --metric test/loss --sort seconds

It leaves these files in the folder that is given, or in comparisons/DATE/TIME if that is a single run or there are several:
  compare.csv compare.md compare.tex    the table: in full precision, for a README, for a paper (booktabs)
                                        (in csv files a text that a spreadsheet would run has an apostrophe before it)
  runs.csv                              a row for each run, from which all can be computed again
  compare.png report.html               a figure; an interactive report in one file
                                        (runs of several data sets: one of each for each, and ranks.csv with mean ranks)
  wandb-workspace.json                  the address of the workspace that --wandb made, so that it is updated next time"""


def main(words: Sequence[str] | None = None) -> None:
    """`compare.py`: ends the process with an exit code unless all went well."""
    exit_with(lambda: run_command(_compare, words))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=invocation("compare"),
        description=DESCRIPTION,
        epilog=as_typed(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="a run, or a folder that holds some; NAME=FOLDER names its group, or stands before the labels of its groups",
    )
    parser.add_argument(
        "--baseline", metavar="GROUP", help="label or folder of the group to compare with; default: the fewest added techniques"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="default: the test metric of what chose the best model, such as test/acc"
    )
    parser.add_argument(
        "--mode", choices=("max", "min"), help="which value of it is best; default: as the runs know, or as its name tells"
    )
    parser.add_argument("--sort", metavar="COLUMN", help="a column of compare.csv; default: mean, the best first")
    parser.add_argument("--output", metavar="FOLDER", help="where the files go")
    parser.add_argument(
        "--wandb",
        action="store_true",
        help='make a wandb workspace with the same views, or update it; needs pip install "lightning-recipes[workspace]"',
    )
    parser.add_argument("--version", action="store_true", help="the versions of this project and its libraries")
    return parser


def _compare(words: Sequence[str]) -> int:
    parser = _parser()

    def refuse(message: str) -> NoReturn:
        raise RecipeError(message)

    parser.error = refuse  # type: ignore[method-assign]
    flags, unknown = parser.parse_known_args(words)
    known = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    for word in unknown:
        close = nearest(word.partition("=")[0].lstrip("-"), [flag.lstrip("-") for flag in known])
        raise RecipeError(
            f"there is no flag {word}; " + (f"did you mean --{close}?" if close else f"there is {', '.join(known)}")
        )
    typed = [("a folder", word) for word in flags.folders]
    typed += [(f"--{name}", getattr(flags, name)) for name in ("baseline", "metric", "sort", "output")]
    for what, value in typed:
        if value is not None and not value.strip():
            raise RecipeError(f"{what} has no name")  # it would be the current folder
    places: list[Path] = []
    names: list[tuple[str, Path]] = []
    for word in flags.folders:
        name, place = _split(word, known)
        places.append(place)
        names += [] if name is None else [(name, place)]
    present(
        places or [last_sweep(Path(SWEEPS))],
        output=Path(flags.output) if flags.output else None,
        metric=flags.metric,
        mode=flags.mode,
        baseline=flags.baseline,
        sort=flags.sort,
        wandb=flags.wandb,
        names=names,
    )
    expect_printed()
    return 0


def _split(word: str, flags: Sequence[str]) -> tuple[str | None, Path]:
    """NAME=FOLDER as both, with the longest name that leaves a folder; None for a folder without a name."""
    if "=" not in word or Path(word).exists():
        return None, Path(word)
    parts = word.split("=")
    for place in range(len(parts) - 1, 0, -1):
        name, folder = " ".join("=".join(parts[:place]).split()), "=".join(parts[place:])
        if folder and Path(folder).is_dir():
            if not name:
                raise RecipeError(f"{word}: there is no name before the =; type NAME=FOLDER, or the folder alone")
            return name, Path(folder)
    name, _, value = word.partition("=")
    meant = f"; did you mean --{name} {quote(value)}?" if f"--{name}" in flags else ""
    raise RecipeError(f"there is no folder {word if meant or not value else value}{meant}")


def last_sweep(folder: Path) -> Path:
    """The newest sweep that has left a run."""
    from recipes.compare.runs import below

    for sweep in sorted(folder.glob("*/*"), reverse=True):
        if next(below(sweep), None):
            return sweep
    raise RecipeError(f"no sweep has left a run in {folder}/: name folders, or start one: python train.py -m seed=0,1,2,3,4")
