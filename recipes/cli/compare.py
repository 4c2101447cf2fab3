"""The command `compare.py`: run folders in; a table, notes, a figure and a report out.

Nothing here imports torch, and what takes time to import is imported only when runs are compared.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from plugins.errors import RecipeError
from recipes.cli.exits import exit_with, run_command
from recipes.cli.printing import expect_printed
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.environment import told
from recipes.config.errors import one_line, printable
from recipes.config.invoked import as_typed, invocation
from recipes.config.quoting import quote
from recipes.config.spelling import nearest

if TYPE_CHECKING:
    from rich.console import Console

    from recipes.compare.runs import Comparison, Run

SWEEPS = "multirun"
LISTED = 20  # runs that are not finished
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


def present(
    places: Sequence[Path],
    output: Path | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    sort: str | None = None,
    wandb: bool = False,
    names: Sequence[tuple[str, Path]] = (),
    mode: str | None = None,
) -> list[Comparison]:
    """Compare the runs in `places`: print a table for each data set and what must be known of it, and leave the files in `output`.

    Args:
        places: run folders, or folders that hold some.
        output: by default the place, if it is one that holds runs, else comparisons/DATE/TIME.
        metric: what decides, such as `test/acc`; by default the test metric of what chose the best models.
        baseline: label or folder of the group that the others are compared with.
        sort: a column of compare.csv; by default the best mean comes first.
        wandb: whether a wandb workspace is made or updated.
        names: labels of groups, each with the place that holds them; before a group's own label where a place holds several.
        mode: which value of the metric is best, max or min; by default as the runs know.
    """
    with told():
        from rich.console import Console
        from rich.text import Text

        from recipes.compare import standing, statistics, table
        from recipes.compare.comparison import compare_all
        from recipes.compare.datasets import as_file
        from recipes.compare.figure import write_figure
        from recipes.compare.output import output_folder
        from recipes.compare.report import write_report
        from recipes.compare.runs import below, find, read
        from recipes.compare.workspace import on_wandb, show_workspace
        from recipes.store.files import write_text

    catalogue = Catalogue(installed_folders())
    further = [Path(baseline)] if baseline and next(below(Path(baseline)), None) else []
    runs = [read(folder, catalogue) for folder in find([*places, *further])]
    labels: dict[Path, str] = {}
    for name, place in names:
        for run in find([place]):
            if labels.setdefault(run.resolve(), name) != name:
                raise RecipeError(f"{run} has two names, {labels[run.resolve()]} and {name}; give it one")
    comparisons = compare_all(runs, catalogue, metric, baseline, labels, mode)
    tables = [(each, table.arrange(statistics.rows(each), bool(each.larger), sort)) for each in comparisons]
    several = [each.data for each in comparisons] if len(comparisons) > 1 else []
    endings = [f"-{name}" for name in as_file(several)] or [""]
    folder = output_folder(places, output, endings)
    console = Console(highlight=False)
    for comparison, rows in tables:
        if several:
            console.print(Text(printable(f"data {comparison.data}")), style="bold")
        table.show(console, comparison, rows)
        _print_notes(console, comparison)
        if several:
            console.print()
    ranked = standing.standings(tables) if several else ([], [])
    if several:
        standing.show(console, *ranked, several)
    _print_unfinished(console, [run for each in comparisons for run in each.unfinished])

    def write_table() -> None:
        every, of = [row for _, rows in tables for row in rows], [each.data for each, rows in tables for _ in rows]
        differing = list(dict.fromkeys(key for each in comparisons for key in each.differing))
        write_text(folder / "compare.csv", table.to_csv(every, of if several else ()))
        write_text(folder / "runs.csv", table.runs_csv(every, differing, of if several else ()))
        markdown = [table.to_markdown(*each) for each in tables]
        if several:
            markdown = [f"## {name}\n\n{text}" for name, text in zip(several, markdown, strict=True)]
            markdown.append(f"## all data\n\n{standing.to_markdown(*ranked, several)}")
            write_text(folder / "ranks.csv", standing.to_csv(ranked[0], several))
        write_text(folder / "compare.md", "\n".join(markdown))
        write_text(folder / "compare.tex", "\n".join(table.to_latex(*each) for each in tables))

    def tell_wandb() -> None:
        for (comparison, rows), ending in zip(tables, endings, strict=True):
            if wandb:
                place = folder / f"wandb{ending}" if several else folder
                place.mkdir(exist_ok=True)
                show_workspace(comparison, rows, place, console)
                continue
            for name, value in on_wandb(comparison).items():
                _print_line(console, name, value)

    outputs: list[tuple[str, Callable[[], None], str]] = [("table", write_table, f"{folder / 'compare.csv'} (.md, .tex)")]
    for each, ending in zip(tables, endings, strict=True):
        picture, page = folder / f"compare{ending}.png", folder / f"report{ending}.html"
        outputs.append(("figure", partial(write_figure, *each, picture), str(picture)))
        outputs.append(("report", partial(write_report, *each, page), str(page)))
    outputs.append(("wandb", tell_wandb, ""))
    problems: list[Exception] = []
    for name, write, value in outputs:
        try:
            write()
        except Exception as error:  # the first is raised when everything else is there
            value = f"not written: {one_line(error)}" if problems else "not written"
            problems.append(error)
        if value:
            _print_line(console, name, value)
    if problems:
        raise problems[0]
    return comparisons


def _print_line(console: Console, name: str, value: str) -> None:
    console.print(printable(f"{name:8} {value}"), soft_wrap=True, markup=False)


def _print_notes(console: Console, comparison: Comparison) -> None:
    """A note a line; on a terminal wrapped between words."""
    width = console.width if console.is_terminal else sys.maxsize
    for note in comparison.notes:
        for line in textwrap.wrap(printable(note), width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False):
            console.print(as_typed(line), soft_wrap=True, markup=False)


def _print_unfinished(console: Console, runs: Sequence[Run]) -> None:
    if not runs:
        return
    console.print("not finished:")
    for run in runs[:LISTED]:
        _print_line(console, f"  {run.status}", f"{run.folder}{': ' if run.error else ''}{run.error}")
    if len(runs) > LISTED:
        console.print(f"  and {len(runs) - LISTED} more", markup=False)
