"""The picture of a run shows what its files say, and takes whatever somebody has put there."""

import json

import numpy as np
import pytest
from PIL import Image

from plugins.errors import RecipeError
from recipes.compare import run_picture
from recipes.compare.run_picture import draw_run, write_picture
from recipes.compare.runs import Run
from tests.recipes.compare.fabricated import config, leave

CURVE = {"train/loss": [3.0, 2.0], "val/loss": [2.5, 2.25], "val/acc": [0.25, 0.5], "lr": [0.1, 0.2], "val/f1": [0.1, 0.2]}


def drawn(folder):
    return draw_run(Run(folder, "finished", json.loads((folder / "result.json").read_text())))


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_curves_are_those_of_metrics_csv(tmp_path):
    figure = drawn(leave(tmp_path / "run", curve=CURVE, steps=20, epochs=2.0, best_step=10, seed=3))
    loss, accuracy, rate = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    assert lines(loss)["training"].get_ydata().tolist() == CURVE["train/loss"]
    assert lines(loss)["validation"].get_xdata().tolist() == [1, 2] and loss.get_xlabel() == "epoch"
    assert lines(accuracy)["validation"].get_ydata().tolist() == CURVE["val/acc"] and accuracy.get_ylabel() == "%"
    assert [*lines(loss)["best step"].get_xdata()] == [1, 1]
    assert rate.get_lines()[0].get_ydata().tolist() == CURVE["lr"]
    title = figure.get_suptitle()
    assert "seed 3, finished, best step 10 of 20" in title and "test accuracy 50.00 %" in title
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training", "validation", "best step"]


def test_phases_and_shares_of_the_training(tmp_path):
    whole = config("+regularizer=[dropout,l2]")
    whole["regularizer"]["dropout"]["when"] = [0.2, 0.9]
    figure = drawn(leave(tmp_path / "run", curve=CURVE, config=whole, phases=2, phase_begins=[0, 10]))
    loss, bars = figure.axes[0], figure.axes[-1]
    assert [*lines(loss)["next phase"].get_xdata()] == [10, 10] and loss.get_xlabel() == "step"
    validation = lines(loss)["validation"]  # of which no line leads from one phase to the next
    assert validation.get_xdata().tolist() == [10, 10, 20] and np.isnan(validation.get_ydata()).tolist() == [False, True, False]
    (bar,) = bars.patches
    assert (bar.get_x(), bar.get_width()) == (pytest.approx(20), pytest.approx(70))
    assert [label.get_text() for label in bars.get_yticklabels()] == ["dropout"]


def test_the_metric_that_chose_is_shown_and_a_loss_that_falls_far_is_logarithmic(tmp_path):
    steep = {"train/loss": [100.0, 1.0], "val/loss": [90.0, 2.0], "val/f1": [0.1, np.nan]}
    figure = drawn(leave(tmp_path / "run", curve=steep, monitor="val/f1"))
    assert [axes.get_title() for axes in figure.axes] == ["loss", "f1"] and figure.axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    "changes", [{}, {"status": "diverged"}, {"epochs": None, "steps": None, "best_step": None, "monitor": None}]
)
def test_a_png_is_left_without_the_time(tmp_path, changes):
    folder = leave(tmp_path / "run", "name='$x_1$ \u2603 \u6f22'", curve=CURVE, **changes)
    assert write_picture(folder)
    with Image.open(folder / "run.png") as picture:
        assert picture.format == "PNG" and picture.width > 800
        assert not any("time" in key.lower() or "date" in key.lower() for key in picture.info)
    assert {path.name for path in folder.iterdir()} == {"result.json", "metrics.csv", "run.png"}


def test_nothing_to_draw_and_too_much_of_it(tmp_path, monkeypatch):
    assert not write_picture(leave(tmp_path / "bare"))
    assert not write_picture(leave(tmp_path / "other", curve={"lr": [1.0, 2.0]}))
    folder = leave(tmp_path / "long", curve=CURVE)
    monkeypatch.setattr(run_picture, "LARGEST", 10)
    with pytest.raises(RecipeError, match=r"metrics\.csv is larger than 10 bytes"):
        write_picture(folder)


def test_a_curve_of_one_value_or_of_none_that_is_finite(tmp_path):
    for number, values in enumerate(([1.0], [np.inf, np.nan])):
        assert write_picture(leave(tmp_path / str(number), curve={"val/loss": values, "train/loss": values}))
