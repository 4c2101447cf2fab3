"""Which metrics are better when larger."""

import pytest
from torchmetrics import MeanMetric

from plugins.base import Plugin, RecipeError, Task, declared_directions
from plugins.directions import is_accuracy, larger_is_better

LARGER = "val/acc val/acc_pgd val/color/acc acc_color test/f1 val/macro_f1 val/F1 val/top5_acc val/acc5 val/r2 test/r2_score val/auroc"
LARGER += " val/band_gap/acc band_gap/acc val/gap/acc test/generalization_gap/acc val/roc_auc val/average_precision val/mean_average_precision val/balanced_accuracy val/dice val/explained_variance"
SMALLER = (
    "val/loss val/color/loss val/account/loss loss val/error val/mean_squared_error val/mse val/rmse val/mae val/nll val/ece"
)
SMALLER += " val/calibration_error val/negative_log_likelihood val/perplexity val/hamming_distance gap/acc gap/loss generalization_gap/acc"
UNKNOWN = "val/sure val/foo epoch val/entropy val/f1_loss val/acc_error ema/decay"


@pytest.mark.parametrize(("names", "larger"), [(LARGER, True), (SMALLER, False), (UNKNOWN, None)])
def test_names_tell_or_nobody_knows(names, larger):
    assert {name: larger_is_better(name) for name in names.split()} == dict.fromkeys(names.split(), larger)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("metric", ["val/foo", "test/digit/foo", "test/acc", "val/loss"])
def test_what_is_declared_comes_first(metric, mode):
    within, last = metric.partition("/")[2], metric.rpartition("/")[2]
    for name in (metric, within, last):
        assert larger_is_better(metric, {name: mode, "other": "max"}) is (mode == "max")


def test_only_accuracies_are_written_in_percent():
    assert [is_accuracy(name) for name in ("val/acc", "val/acc_pgd", "val/f1", "val/r2", "val/loss")] == [
        True,
        True,
        *3 * [False],
    ]


def test_techniques_declare_and_may_not_contradict_each_other():
    def declaring(**directions):
        return type("Own", (Plugin,), {"stage": 1, "directions": directions})()

    assert declared_directions([declaring(a="max"), declaring(b="min"), declaring(a="max")]) == {"a": "max", "b": "min"}
    with pytest.raises(RecipeError, match="declares a to be best at its min"):
        declared_directions([declaring(a="max"), declaring(a="min")])
    with pytest.raises(RecipeError, match="the direction of a must be one of max, min, got 'larger'"):
        declared_directions([declaring(a="larger")])


@pytest.mark.parametrize("names", [[""], ["a", "b"]])
@pytest.mark.parametrize(("better", "mode"), [(True, "max"), (False, "min"), (None, None)])
def test_a_technique_may_not_contradict_its_torchmetrics_object(names, better, mode):
    class Own(Plugin):
        stage, group, option = 1, "metric", "own"

        def metrics(self, task):
            return {"own": type("Mean", (MeanMetric,), {"higher_is_better": better})()}

    tasks = [Task(name, "classification", 3) for name in names]
    for said in ("max", "min"):
        declaring = type("Declaring", (Own,), {"directions": {"own": said}})()
        if mode not in (None, said):
            with pytest.raises(
                RecipeError, match=f"metric/own: directions and higher_is_better={better} .* contradict each other"
            ):
                declared_directions([declaring], tasks)
        else:
            assert declared_directions([declaring], tasks)["own"] == said
