import itertools
import math
import re
import struct

import numpy as np
import pytest
from scipy import stats

from recipes.compare.comparison import compare
from recipes.compare.figure import draw, steps_an_epoch, together, write_figure
from recipes.compare.runs import find, read
from recipes.compare.statistics import rows
from recipes.compare.table import arrange
from recipes.config.catalogue import Catalogue
from tests.recipes.compare.fabricated import leave, leave_group

CATALOGUE = Catalogue()
ADDED = ("+regularizer=dropout", "+regularizer=l2", "+wrapper=sam", "+averaging=ema", "+clipping=norm", "+stopping=early")


def compared(place, metric=None):
    comparison = compare([read(folder, CATALOGUE) for folder in find([place])], CATALOGUE, metric)
    return comparison, arrange(rows(comparison), bool(comparison.larger))


def many(place, groups, seeds, curves=True, rng=None):
    """Groups that differ in the learning rate, the first of which is the baseline."""
    rng = rng or np.random.default_rng()
    for group in range(groups):
        for seed in range(seeds):
            final = 0.8 + 0.05 * rng.random()
            leave(
                place / f"{group}-{seed}",
                seed=seed,
                metrics={"test/acc": final},
                curve={"val/acc": list(final - 0.5 / np.arange(1, 7))} if curves else None,
            )
            rename(place / f"{group}-{seed}", group)


def rename(folder, group):
    """Another learning rate, without composing a config for each."""
    text = (folder / "result.json").read_text()
    assert '"lr": 0.1' in text
    (folder / "result.json").write_text(text.replace('"lr": 0.1', f'"lr": {(group + 1) / 100}'))


def test_the_file_is_a_png_wide_enough_for_a_readme(tmp_path):
    many(tmp_path / "runs", 2, 3)
    write_figure(*compared(tmp_path / "runs"), tmp_path / "compare.png")
    content = (tmp_path / "compare.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1800 and 500 < height < 1000  # two pixels for each of 900
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["compare.png"]


def test_curves_are_means_over_seeds_with_a_band_of_one_deviation(tmp_path):
    rng = np.random.default_rng()
    values = rng.random((4, 8))
    for seed, curve in enumerate(values):
        leave(tmp_path / str(seed), seed=seed, curve={"val/acc": list(curve)}, steps=80, epochs=8.0)
    left, _ = draw(*compared(tmp_path)).axes
    (line,) = left.lines
    assert line.get_xdata() == pytest.approx(np.arange(1, 9)) and line.get_ydata() == pytest.approx(values.mean(0))
    (band,) = left.collections
    edges = band.get_paths()[0].vertices
    for epoch in range(8):
        at = edges[np.isclose(edges[:, 0], epoch + 1)][:, 1]
        mean, deviation = values[:, epoch].mean(), values[:, epoch].std(ddof=1)
        assert (at.min(), at.max()) == pytest.approx((mean - deviation, mean + deviation))
    assert left.get_xlabel() == "epoch" and left.get_ylabel() == "validation accuracy, %"


def test_seeds_of_different_lengths_are_averaged_where_all_have_values():
    one = np.array([10, 20, 30, 40]), np.array([1.0, 2.0, 3.0, 4.0])
    other = np.array([20, 40, 60]), np.array([10.0, 30.0, 50.0])
    steps, values = together([one, other])
    assert list(steps) == [20, 30, 40]
    assert values == pytest.approx(np.array([[2.0, 3.0, 4.0], [10.0, 20.0, 30.0]]))


def test_steps_are_the_axis_where_epochs_are_not_known(tmp_path):
    leave(tmp_path / "a", curve={"val/acc": [0.1, 0.2, 0.3]}, steps=30, epochs=3.0)
    leave(tmp_path / "b", "+wrapper=sam", curve={"val/acc": [0.2, 0.3, 0.4]}, steps=30, epochs=1.0, phases=2)
    assert steps_an_epoch(read(tmp_path / "a", CATALOGUE)) == 10
    left, _ = draw(*compared(tmp_path)).axes
    assert left.get_xlabel() == "step" and list(left.lines[0].get_xdata()) == [10, 20, 30]


def test_a_further_phase_is_marked_and_no_line_leads_to_it(tmp_path):
    leave(tmp_path / "a", curve={"val/acc": [0.1, 0.2, 0.3]}, steps=30, epochs=3.0)
    leave(tmp_path / "b", "+wrapper=sam", curve={"val/acc": [0.2, 0.3, 0.4]}, steps=30, phases=2, phase_begins=[0, 20])
    figure = draw(*compared(tmp_path))
    first, second, mark = figure.axes[0].lines
    assert not np.isnan(first.get_ydata()).any() and second.get_xdata().tolist() == [10, 20, 20, 30]
    assert np.isnan(second.get_ydata()).tolist() == [False, False, True, False]
    assert [*mark.get_xdata()] == [20, 20] and mark.get_color() == second.get_color()
    assert "strokes below: next phase" in figure.get_supxlabel()


def test_each_group_has_its_seeds_its_mean_and_its_interval(tmp_path):
    values = np.random.default_rng().random((3, 5))
    for number, some in enumerate(values):
        leave_group(tmp_path, f"{number}-", list(some), *([ADDED[number]] if number else []))
    comparison, found = compared(tmp_path)
    (axes,) = draw(comparison, found).axes
    points = [np.asarray(one.get_offsets())[:, 0] for one in axes.collections]
    intervals = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    dashed = [line.get_xdata() for line in axes.lines if line.get_linestyle() == "--"]
    low, high = axes.get_xlim()
    for row, some, line in zip(found, points, intervals, strict=True):
        ours = np.array(list(row.group.metric("test/acc").values()))
        assert some == pytest.approx(ours) and low < ours.min() and ours.max() < high
        assert line == pytest.approx(stats.t.interval(0.95, 4, ours.mean(), stats.sem(ours)))
    assert dashed == [pytest.approx([values[0].mean()] * 2)]
    assert [label.get_text() for label in axes.get_yticklabels()] == [row.label for row in found]


def test_an_interval_that_does_not_fit_ends_in_an_arrow(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.6])  # ± 12.7 standard errors
    leave_group(tmp_path, "b", [0.70, 0.71, 0.72, 0.70], "+wrapper=sam")
    (axes,) = draw(*compared(tmp_path)).axes
    assert sorted(line.get_marker() for line in axes.lines if line.get_marker() in "<>") == ["<", ">"]


def test_a_diverged_run_leaves_its_group_without_a_mean_but_not_out(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.6, 0.7])
    leave_group(tmp_path, "b", [0.8, math.nan, 0.9], "+wrapper=sam")
    figure = draw(*compared(tmp_path))
    figure.draw_without_rendering()
    texts = [label.get_text() for child in figure.axes[0].child_axes for label in child.get_yticklabels()]
    assert texts[0] == "60 ± 10" and texts[1] == "no mean: 1 of 3 runs\nwithout a number"


def test_a_dollar_is_a_dollar(tmp_path):
    name = r"$5_{ and $6 \\bad{"
    leave(tmp_path / "a", f"name='{name}'", metrics={"test/$x_{$/loss": 1.0}, monitor="val/$x_{$/loss")
    comparison, found = compared(tmp_path)
    figure = draw(comparison, found)
    write_figure(comparison, found, tmp_path / "compare.png")
    assert figure.axes[0].get_yticklabels()[0].get_text() == found[0].label and found[0].label.count("$") == 2
    assert "$x_{$" in figure.axes[0].get_xlabel()


def test_the_numbers_have_the_digits_of_the_table_also_where_groups_are_left_out(tmp_path):
    many(tmp_path, 30, 2, curves=False)
    leave(tmp_path / "z0", "+wrapper=sam", metrics={"test/acc": 0.01})  # last, so not shown
    leave(tmp_path / "z1", "+wrapper=sam", seed=1, metrics={"test/acc": 0.0102})
    figure = draw(*compared(tmp_path))
    figure.draw_without_rendering()
    (texts,) = ([label.get_text() for label in child.get_yticklabels()] for child in figure.axes[0].child_axes)
    assert len(texts) == 20 and all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d( \*)?", text) for text in texts)


def test_losses_are_no_percentages(tmp_path):
    leave_group(tmp_path, "a", [1.5, 1.6], metric="test/loss")
    (axes,) = draw(*compared(tmp_path)).axes
    assert axes.get_xlabel() == "test loss"


@pytest.mark.parametrize(("groups", "seeds"), [(1, 1), (1, 4), (2, 1), (2, 5), (7, 3), (15, 3), (40, 2)])
@pytest.mark.parametrize("curves", [True, False])
def test_the_picture_stays_readable(tmp_path, groups, seeds, curves):
    many(tmp_path, groups, seeds, curves)
    comparison, found = compared(tmp_path)
    figure = draw(comparison, found)
    figure.draw_without_rendering()
    *left, right = figure.axes
    assert len(left) == curves
    assert len(right.get_yticks()) == min(groups, 20)
    assert comparison.baseline.label in [label.get_text() for label in right.get_yticklabels()]
    if groups > 20:
        assert right.get_title(loc="left") == f"20 of {groups} groups"
    if curves:
        assert len(left[0].lines) == min(groups, 6)
        assert left[0].get_title(loc="left") == (f"6 of {groups} groups" if groups > 6 else "")
    page = figure.bbox
    for axes in (right, *right.child_axes):
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 - 1 for upper, lower in itertools.pairwise(boxes))  # none covers the next
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    if curves:
        assert min(label.get_window_extent().x0 for label in right.get_yticklabels()) > left[0].get_window_extent().x1


def test_long_labels_are_shortened_and_leave_room(tmp_path):
    words = "+regularizer=[dropout,l2,label_smoothing]", "+augmentation=[mixup,cutout,crop]", "+averaging=ema", "+clipping=norm"
    for number, some in enumerate([(), words[:1], words[:2], words[:3], words]):
        leave(tmp_path / str(number), *some, *(["regularizer.dropout.p=0.25"] if some else []), curve={"val/acc": [0.1, 0.2]})
    figure = draw(*compared(tmp_path))
    figure.draw_without_rendering()
    left, right = figure.axes
    boxes = [label.get_window_extent() for label in right.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in itertools.pairwise(boxes))
    assert min(left.get_window_extent().width, right.get_window_extent().width) > 0.25 * figure.bbox.width


def test_the_beginning_of_training_does_not_flatten_the_rest(tmp_path):
    leave(tmp_path / "a", curve={"val/acc": [0.1, 0.3, 0.79, 0.80, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86]}, steps=100, epochs=10.0)
    left, _ = draw(*compared(tmp_path)).axes
    bottom, top = left.get_ylim()
    assert 0.3 < bottom < 0.79 and 0.86 < top < 0.9
    leave(tmp_path / "b", "+wrapper=sam", curve={"val/acc": [0.5] * 10}, steps=100, epochs=10.0)
    assert draw(*compared(tmp_path)).axes[0].get_ylim()[0] < 0.5
