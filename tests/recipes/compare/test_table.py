import csv
import io
import math
import re

import pytest
from rich.console import Console

from plugins.errors import RecipeError
from recipes.compare.comparison import compare
from recipes.compare.csv_files import VALUES, runs_csv, to_csv
from recipes.compare.markup import LATEX, to_latex, to_markdown
from recipes.compare.runs import find, read
from recipes.compare.statistics import rows
from recipes.compare.table import arrange, columns, decimals, show
from recipes.config.catalogue import Catalogue
from recipes.config.errors import from_cell
from tests.recipes.compare.fabricated import leave, leave_group

CATALOGUE = Catalogue()
BASELINE = [0.810, 0.842, 0.793, 0.861, 0.833]
BETTER = [value + shift for value, shift in zip(BASELINE, (0.050, 0.052, 0.047, 0.055, 0.051), strict=True)]
LIKE = [0.85, 0.83, 0.79, 0.87, 0.80]
LONG = ("+regularizer=[dropout,l2]", "+augmentation=[mixup,cutout]", "regularizer.dropout.p=0.25", "+averaging=ema")


def table(place, metric=None, sort=None):
    comparison = compare([read(folder, CATALOGUE) for folder in find([place])], CATALOGUE, metric)
    return comparison, arrange(rows(comparison), bool(comparison.larger), sort)


def three(place):
    leave_group(place, "a", BASELINE)
    leave_group(place, "b", BETTER, "+regularizer=dropout", seconds=12.0)
    leave_group(place, "c", LIKE, "+wrapper=sam", seconds=25.0)
    return table(place)


def printed(comparison, found, width=80, terminal=True):
    file = io.StringIO()
    show(Console(file=file, width=width, force_terminal=terminal, color_system=None), comparison, found)
    return file.getvalue().splitlines()


def raw(text):
    return list(csv.DictReader(io.StringIO(text)))


# Order


def test_the_best_mean_comes_first_for_accuracy_and_for_loss(tmp_path):
    for number, (acc, loss) in enumerate([(0.5, 1.0), (0.9, 3.0), (math.nan, math.nan), (0.7, 2.0)]):
        words = (f"optimizer.lr=0.{number + 1}",)
        leave(tmp_path / str(number), *words, metrics={"test/acc": acc, "test/loss": loss})
    assert [row.label for row in table(tmp_path)[1]] == [f"optimizer.lr=0.{n}" for n in (2, 4, 1, 3)]
    assert [row.label for row in table(tmp_path, "test/loss")[1]] == [f"optimizer.lr=0.{n}" for n in (1, 4, 2, 3)]


@pytest.mark.parametrize("column", VALUES)
def test_every_column_sorts_and_what_has_no_value_comes_last(tmp_path, column):
    three(tmp_path)
    leave(tmp_path / "single", "optimizer=adam", metrics={"test/acc": 0.99})
    _, found = table(tmp_path, sort=column)
    values = [VALUES[column](row) for row in found]
    there = [value for value in values if value is not None]
    assert len(values) == 4 and values[: len(there)] == there
    descending = column in ("n", "pairs", "baseline") or column.startswith(("mean", "interval", "difference"))
    assert there == sorted(there, reverse=descending)


def test_an_unknown_column_is_a_mistake_with_the_nearest_name(tmp_path):
    leave(tmp_path / "a")
    with pytest.raises(RecipeError, match=r"--sort second: there is no such column; did you mean --sort seconds\?"):
        table(tmp_path, sort="second")


# Files


def test_the_csv_has_full_precision_and_nothing_where_there_is_nothing(tmp_path):
    _, found = three(tmp_path)
    for line, row in zip(raw(to_csv(found)), found, strict=True):
        assert float(line["mean"]) == row.mean and float(line["interval_low"]) == row.interval[0]
        assert float(line["seconds"]) == row.seconds and from_cell(line["label"]) == row.label and int(line["n"]) == row.n
        assert (line["p"] == "") == (row.p is None) and (not line["p"] or float(line["p"]) == row.p)
        assert line["baseline"] == str(row.baseline)


def test_the_runs_csv_has_a_row_for_each_run(tmp_path):
    comparison, found = three(tmp_path)
    lines = raw(runs_csv(found, comparison.differing))
    assert len(lines) == 15
    for line in lines:
        (run,) = [run for run in comparison.runs if str(run.folder) == line["folder"]]
        assert float(line["test/acc"]) == run.metrics["test/acc"] and int(line["seed"]) == run.seed
        assert float(line["seconds"]) == run.result["seconds"] and line["machine"] == "CPU, 1 threads"
        assert line["regularizer.dropout.p"] == ("0.5" if "dropout" in line["label"] else "")


def cells_of(line, separator):
    return [cell.strip() for cell in re.split(rf"(?<!\\){re.escape(separator)}", line)]


def test_markdown_is_a_table_with_as_many_cells_in_each_row(tmp_path):
    leave_group(tmp_path, "a", BASELINE, "name=a|b")
    leave_group(tmp_path, "b", BETTER, "name=b_c", "+regularizer=dropout")
    comparison, found = table(tmp_path)
    comparison.notes.append("a *note* with | signs")
    text = to_markdown(comparison, found)
    lines = [cells_of(line, "|") for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2][1] == "`b_c`" and lines[3][1] == "`a\\|b` (baseline)"
    assert lines[2][5].startswith("**+0.051 [") and lines[2][6] == "**<0.001 \\***"
    assert "- a \\*note\\* with \\| signs" in text


def test_latex_is_a_booktabs_table_with_everything_escaped(tmp_path):
    leave_group(tmp_path, "a", BASELINE, "name='50%_{a}&$b^#~'")
    leave_group(tmp_path, "b", [0.3, 0.4, 0.5, 0.2, 0.3], "name=b", "+regularizer=dropout")
    text = to_latex(*table(tmp_path))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0].startswith(r"\begin{tabular}{l") and body[-1] == r"\end{tabular}"
    assert [line for line in body if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    lines = [line for line in body if line.endswith(r"\\")]
    count = len(body[0].removeprefix(r"\begin{tabular}{").removesuffix("}"))
    assert len(lines) == 3 and all(len(cells_of(line, "&")) == count for line in lines)
    assert r"\texttt{50\%\_\{a\}\&\$b\textasciicircum{}\#\textasciitilde{}} (baseline) & 5 & " in text
    assert not re.search(r"(?<!\\)[%#_]|±|×", "".join(lines)) and text.count("{") == text.count("}")
    assert re.search(r"\\textbf\{\$-\$0\.\d+ \[\$-\$0", text)


# The terminal


@pytest.mark.parametrize("width", [60, 70, 80, 100, 120, 200])
@pytest.mark.parametrize("words", [("+regularizer=dropout",), LONG])
def test_the_table_fits_the_terminal_and_keeps_what_matters(tmp_path, width, words):
    leave_group(tmp_path, "a", BASELINE)
    leave_group(tmp_path, "b", BETTER, *words)
    comparison, found = table(tmp_path)
    lines = printed(comparison, found, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "+0.051 [+0.047, +0.055]" in text and "<0.001 *" in text and "0.828 ± 0.027" in text and "(baseline)" in text
    pieces = [re.split(r"\s\s+", line)[0] for line in lines]  # the label is whole, over several lines, no word is broken
    assert found[0].label in " ".join(pieces)


def test_columns_are_dropped_in_the_order_of_what_they_say(tmp_path):
    comparison, found = three(tmp_path)
    headings = [" ".join(printed(comparison, found, width)[1].split()) for width in (140, 110, 94, 80)]
    assert headings == [
        "n mean 95 % interval difference p time memory",
        "n mean 95 % interval difference p time",
        "n mean difference p time",
        "n mean difference p",
    ]


@pytest.mark.parametrize("words", [("+regularizer=dropout",), LONG])
def test_where_no_terminal_is_nothing_is_cut_off(tmp_path, words):
    leave_group(tmp_path, "a", BASELINE)
    leave_group(tmp_path, "b", BETTER, *words)
    comparison, found = table(tmp_path)
    title, heading, first, second, *_ = printed(comparison, found, 40, terminal=False)
    assert title == "test/acc, larger is better"
    assert heading.split() == ["n", "mean", "95", "%", "interval", "difference", "p", "time", "memory"]
    assert first.startswith(found[0].label) and first.endswith("500.0 MB ×1.00")
    assert second.startswith("nothing added (baseline)") and second.endswith("500.0 MB ×1.00")


def test_significance_is_a_sign_and_not_a_colour_only(tmp_path):
    comparison, found = three(tmp_path)
    lines = {line.split()[0]: line for line in printed(comparison, found, 120)}
    assert " * " in lines["+regularizer=dropout"] and "*" not in lines["+wrapper=sam"]
    assert "* below 0.05" in printed(comparison, found, 120)[-1]


def test_a_group_alone_has_no_differences(tmp_path):
    leave_group(tmp_path, "a", BASELINE)
    comparison, found = table(tmp_path)
    assert [column.name for column in columns(found)] == ["label", "n", "mean", "interval", "time", "memory"]
    text = "\n".join(printed(comparison, found))
    assert "baseline" not in text and "×" not in text


def test_without_a_sign_there_is_no_legend(tmp_path):
    leave(tmp_path / "a")
    comparison, found = table(tmp_path)
    assert all(line.strip() for line in printed(comparison, found))
    assert "\n\n\n" not in to_markdown(comparison, found)
    assert to_latex(comparison, found).splitlines()[0] == "% test/acc, larger is better"


def test_brackets_in_labels_are_no_markup(tmp_path):
    leave(tmp_path / "a", "name='[bold]x[/bold]'")
    leave(tmp_path / "b", "name='[red]'", "+wrapper=sam")
    text = "\n".join(printed(*table(tmp_path)))
    assert "[bold]x[/bold]" in text and "[red]" in text


# Digits


@pytest.mark.parametrize(
    ("deviation", "digits"), [(0.51, 2), (0.0051, 4), (0.0949, 3), (0.11, 2), (4.2, 1), (37.0, 0), (4000.0, 0), (0.00031, 5)]
)
def test_two_digits_of_the_deviation_are_shown(tmp_path, deviation, digits):
    mean = 10 * deviation
    leave_group(tmp_path, "a", [mean - deviation, mean, mean + deviation], metric="test/loss")
    _, found = table(tmp_path)
    assert found[0].deviation == pytest.approx(deviation) and decimals(found) == digits


@pytest.mark.parametrize("seeds", [2, 5])
def test_no_group_loses_its_digits_to_one_that_scatters_more(tmp_path, seeds):
    for number, (mean, spread) in enumerate([(0.354, 0.021), (1.6, 40.0), (470.0, 60.0), (900.0, 100.0), (0.0, 0.0)]):
        values = [mean + spread * (-1) ** seed for seed in range(seeds)]
        leave_group(tmp_path, str(number), values, f"optimizer.lr=0.{number + 1}", metric="test/loss")
    comparison, found = table(tmp_path)
    digits = decimals(found)
    assert digits == 3
    for text in ("\n".join(printed(comparison, found, 200)), to_markdown(comparison, found), to_latex(comparison, found)):
        (row,) = (row for row in found if 0.3 < row.mean < 0.4)
        assert f"{row.mean:.3f}" in text and f" {row.deviation:.3f}" in text
    assert all(float(f"{row.deviation:.{digits}f}") > 0 for row in found if row.deviation)


def test_more_than_four_digits_are_not_shown_for_a_few_groups(tmp_path):
    for number, spread in enumerate([1e-7, 0.02, 0.03, 0.03]):
        values = [0.5 - spread, 0.5, 0.5 + spread]
        leave_group(tmp_path, str(number), values, f"optimizer.lr=0.{number + 1}")
    assert decimals(table(tmp_path)[1]) == 4


def test_small_losses_of_single_runs_have_digits(tmp_path):
    for number, loss in enumerate((3.1e-6, 8.4e-6)):
        leave(tmp_path / str(number), f"optimizer.lr=0.{number + 1}", metrics={"test/loss": loss}, monitor="val/loss")
    comparison, found = table(tmp_path)
    assert decimals(found) == 7
    assert "0.0000031" in "\n".join(printed(comparison, found, 200))


def test_what_was_changed_on_the_way_is_written_for_latex():
    assert "32-true→16-mixed".translate(LATEX) == r"32-true$\to$16-mixed"


def test_an_interval_of_a_difference_keeps_a_digit(tmp_path):
    leave_group(tmp_path, "a", BASELINE)
    shifts = (0.0004, 0.0006, 0.0005, 0.0004, 0.0006)
    leave_group(tmp_path, "b", [value + shift for value, shift in zip(BASELINE, shifts, strict=True)], "+wrapper=sam")
    text = "\n".join(printed(*table(tmp_path), 200))
    assert "+0.0005 [+0.0004, +0.0006]" in text and "<0.001 *" in text


def test_without_an_interval_there_are_four_digits(tmp_path):
    leave(tmp_path / "a", metrics={"test/acc": 0.123456})
    assert "0.1235" in "\n".join(printed(*table(tmp_path)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [((2.0, 4.0), "4.00 s ×2.00"), ((100.0, 300.0), "5.00 min ×3.00"), ((9000.0, 90000.0), "25.0 h ×10.00")],
)
def test_times_have_one_unit(tmp_path, seconds, text):
    leave(tmp_path / "a", seconds=seconds[0])
    leave(tmp_path / "b", "+wrapper=sam", seconds=seconds[1])
    cells = next(column.cells for column in columns(table(tmp_path)[1]) if column.name == "time")
    assert text in cells and len({cell.split()[1] for cell in cells}) == 1
