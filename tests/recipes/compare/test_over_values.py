import math

import numpy as np

from recipes.compare.over_values import draw_over_values, write_over_values


def test_a_panel_for_each_metric_and_a_line_for_each_run(tmp_path):
    rng = np.random.default_rng()
    values = [0.2, 0.0, 0.1]
    lines = {
        name: {run: rng.random(3).tolist() for run in ("outputs/$a_b", "outputs/c")} for name in ("test/acc_pgd", "test/loss")
    }
    figure = draw_over_values("adversarial.eps", values, lines)
    assert len(figure.axes) == 2
    for axes, (metric, runs) in zip(figure.axes, lines.items(), strict=True):
        assert axes.get_xlabel() == "adversarial.eps" and metric.partition("/")[2] in axes.get_ylabel()
        for line, numbers in zip(axes.lines, runs.values(), strict=True):
            assert line.get_xdata().tolist() == [0.0, 0.1, 0.2]
            assert line.get_ydata().tolist() == [numbers[1], numbers[2], numbers[0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["outputs/$a_b", "outputs/c"]
    write_over_values("adversarial.eps", values, lines, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_number_that_is_missing_leaves_a_gap_and_one_run_is_the_title():
    figure = draw_over_values("inference.samples", [1, 2, 3], {"test/acc": {"run": [0.5, math.nan, 0.7]}})
    assert figure.get_suptitle() == "run" and not figure.legends and len(figure.axes[0].lines) == 1
