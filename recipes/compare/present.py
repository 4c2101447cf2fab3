"""A comparison is shown: table, notes, files, figure, report, workspace. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from recipes.config.catalogue import Catalogue

if TYPE_CHECKING:
    from recipes.compare.groups import Comparison
if TYPE_CHECKING:
    from rich.console import Console
from pathlib import Path

from plugins.errors import RecipeError

if TYPE_CHECKING:
    from recipes.compare.runs import Run
import sys
import textwrap
from collections.abc import Sequence
from functools import partial

from recipes.config.catalogue import installed_folders
from recipes.config.environment import told
from recipes.config.errors import one_line, printable
from recipes.config.invoked import as_typed

LISTED = 20  # runs that are not finished


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

        from recipes.compare import csv_files, markup, standing, statistics, table
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
    measured = [each for each in tables if standing.is_measured(each[0])]
    without = [each.data for each in comparisons if not standing.is_measured(each)]
    ranked = (*standing.standings(measured), [each.data for each, _ in measured], without)
    if several:
        standing.show(console, *ranked)
    _print_unfinished(console, [run for each in comparisons for run in each.unfinished])

    def write_table() -> None:
        every, of = [row for _, rows in tables for row in rows], [each.data for each, rows in tables for _ in rows]
        differing = list(dict.fromkeys(key for each in comparisons for key in each.differing))
        write_text(folder / "compare.csv", csv_files.to_csv(every, of if several else ()))
        write_text(folder / "runs.csv", csv_files.runs_csv(every, differing, of if several else ()))
        markdown = [markup.to_markdown(*each) for each in tables]
        if several:
            markdown = [f"## {name}\n\n{text}" for name, text in zip(several, markdown, strict=True)]
            markdown.append(f"## all data\n\n{standing.to_markdown(*ranked)}")
            write_text(folder / "ranks.csv", standing.to_csv(ranked[0], ranked[2], ranked[3]))
        write_text(folder / "compare.md", "\n".join(markdown))
        write_text(folder / "compare.tex", "\n".join(markup.to_latex(*each) for each in tables))

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
        ranks = ranked if several else None
        outputs.append(("report", partial(write_report, *each, page, ranks), str(page)))
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
    console.print("not compared:")
    for run in runs[:LISTED]:
        _print_line(console, f"  {run.status}", f"{run.folder}{': ' if run.error else ''}{run.error}")
    if len(runs) > LISTED:
        console.print(f"  and {len(runs) - LISTED} more", markup=False)
