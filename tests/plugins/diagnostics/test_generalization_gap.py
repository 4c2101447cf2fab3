import pytest
import torch
from torch import nn

from plugins.averaging.ema import EMA
from plugins.base import Plugin, Stage
from plugins.diagnostics.generalization_gap import GeneralizationGap, gap
from plugins.inference.mc_dropout import MCDropout
from plugins.regularizer.dropout import Dropout
from recipes.data.loaders import StepLoader
from recipes.data.split import Split


class Watch(Plugin):
    """Keeps the weights of each validation."""

    stage = Stage.INFERENCE

    def __init__(self):
        self.weights = []

    def on_validation_end(self, trainer, pl_module):
        self.weights.append({name: value.clone() for name, value in pl_module.model.state_dict().items()})


@pytest.fixture
def training():
    """As many training as validation samples."""
    return Split(torch.randn(24, 6), {"": torch.randint(3, (24,))})


def metrics(model, x, y):
    with torch.no_grad():
        outputs = model.eval()(x)
    return float((outputs.argmax(1) == y).float().mean()), float(nn.functional.cross_entropy(outputs, y))


@pytest.mark.parametrize("others", [[], [Dropout(0.5)], [EMA(0.9)]])
def test_is_the_difference_in_evaluation_mode_with_the_evaluated_weights(problem, training, others):
    watch = Watch()
    problem.fit(GeneralizationGap(), watch, *others, loader=StepLoader(training, 8, 0), steps=4)
    model = problem.copy()
    weights = {name: value for name, value in watch.weights[0].items() if not name.startswith("2.dropout")}
    model.load_state_dict(weights)
    acc, loss = metrics(model, training.x, training.targets[""])
    validation_acc, validation_loss = metrics(model, *problem.validation.dataset.tensors)
    row = next(row for row in problem.log.rows if "gap/loss" in row)
    assert row["gap/loss"] == pytest.approx(validation_loss - loss, abs=1e-5)
    assert row["gap/acc"] == pytest.approx(acc - validation_acc, abs=1e-5)


def test_takes_as_many_training_samples_as_there_are_for_validation(problem, training):
    asked = []

    class Counting(StepLoader):
        def evaluation_batches(self, limit):
            asked.append(limit)
            return super().evaluation_batches(limit)

    problem.fit(GeneralizationGap(), loader=Counting(training, 8, 0), steps=7)
    assert asked and set(asked) == {24}


def test_changes_no_bit_of_training(problem, training, weights, same):
    looked_at = problem.fit(GeneralizationGap(), loader=StepLoader(training, 8, 0), steps=9)
    assert same(weights(looked_at), weights(problem.fit(loader=StepLoader(training, 8, 0), steps=9)))


def test_both_sides_are_predicted_alike(problem, weights, same):
    """On the same samples there is no gap, however a prediction is made, and no draw of it touches the training."""
    fit = lambda *others: problem.fit(Dropout(0.5), MCDropout(3), *others, loader=problem.validation, steps=6)  # noqa: E731
    looked_at = fit(GeneralizationGap())
    gaps = problem.log.series("gap/loss")
    assert len(gaps) == 2 and gaps == pytest.approx([0.0] * 2, abs=1e-6)
    assert same(weights(looked_at), weights(fit()))


def test_only_what_both_have_is_compared():
    assert gap({"loss": 1.0, "acc": 0.75}, {"acc": 0.5, "f1": 0.1}) == {"acc": 0.25}


def test_the_gap_is_positive_where_training_does_better():
    assert gap({"loss": 1.0, "acc": 0.75}, {"acc": 0.5, "loss": 3.0}) == {"acc": 0.25, "loss": 2.0}


def test_of_a_target_that_is_called_gap_it_is_larger_accuracy_that_is_better():
    assert gap({"gap/acc": 0.9, "gap/loss": 0.5}, {"gap/acc": 0.7, "gap/loss": 0.6}) == pytest.approx(
        {"gap/acc": 0.2, "gap/loss": 0.1}
    )
