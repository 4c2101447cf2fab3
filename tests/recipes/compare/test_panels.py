import numpy as np
import pytest

from plugins.drawing import Panel
from recipes.compare.panels import MOST_NAMED, draw_panels
from recipes.compare.runs import Run

METRICS = """step,mine/0_norm,mine/3_norm,mine/norm,mine/rate,other/norm,lr
1,1.0,2.0,3.0,,9,0.1
2,1.5,nan,3.5,5.0,9,0.1
"""
HISTOGRAMS = """step,name,low,high,counts
1,mine/0,0,1,1 1
2,mine/0,-1,1,1 3
2,other/0,0,1,5 5
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    (tmp_path / "histograms.csv").write_text(HISTOGRAMS)
    return Run(tmp_path, "finished")


def drawn(axes):
    """Lines by label."""
    return {line.get_label(): line.get_xydata() for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_draws_numbers_of_layers_and_of_the_whole_over_the_steps(run):
    (axes,) = draw_panels(run, "mine", [Panel("norms", "norm")]).axes
    lines = drawn(axes)
    assert [*lines] == ["0", "3", "all"] and axes.get_title() == "norms"
    np.testing.assert_array_equal(lines["0"], [[1, 1], [2, 1.5]])
    np.testing.assert_array_equal(lines["3"], [[1, 2], [2, np.nan]])
    (axes,) = draw_panels(run, "mine", [Panel("all", "*")]).axes
    assert [*drawn(axes)] == ["0_norm", "3_norm", "norm", "rate"]


def test_draws_the_last_histograms_in_percent(run):
    (axes,) = draw_panels(run, "mine", [Panel("values", histograms=True)]).axes
    np.testing.assert_array_equal(drawn(axes)["0"], [[-0.5, 25], [0.5, 75]])


def test_draws_points_beside_a_diagonal_and_leaves_out_what_is_empty(run):
    panels = [Panel("nothing", "speed"), Panel("points", points={"a": ([0.2, 0.8], [0.1, 0.9]), "b": ([], [])}, diagonal=True)]
    (axes,) = draw_panels(run, "mine", panels).axes
    assert [*drawn(axes)] == ["a"] and len(axes.get_lines()) == 2 and axes.get_xlim() == (0, 1)
    assert draw_panels(run, "mine", panels[:1]) is None


def test_of_many_layers_some_are_named(run):
    many = {f"layer.{number}": ([1, 2], [number, number]) for number in range(30)}
    (axes,) = draw_panels(run, "mine", [Panel("many", points=many)]).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(drawn(axes)) == 30 and len(names) == MOST_NAMED and {"layer.0", "layer.29"} <= {*names}
    assert len({line.get_color() for line in axes.get_lines()}) == 30
