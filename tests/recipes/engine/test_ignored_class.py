"""A label that the loss leaves out and that is the number of a class, such as a background: no metric counts it."""

from functools import partial

import lightning as L
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from plugins.base import Setting, Task
from plugins.diagnostics.calibration import Calibration
from plugins.inference._measured import NUMBERS, sums_of
from plugins.inference.temperature import Temperature, best_temperature
from plugins.metric.f1 import F1Score
from plugins.regularizer.class_weights import count_classes
from plugins.sampling.balanced import BalancedSampling
from recipes.engine.module import RecipeModule

IGNORED = 0
TASK = Task("", "classification", 3, ignored=IGNORED)


class Net(nn.Module):
    """Takes much for what is ignored, at each place of a sample if there are several."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        nn.init.constant_(self.layer.bias[:1], 1.0)

    def forward(self, x):
        return self.layer(x).movedim(-1, 1)


def trained(places, *plugins):
    """A net after an epoch at the rate 0, and its samples."""
    net, x = Net(), torch.randn(40, *places, 4)
    right = torch.distributions.Categorical(logits=3 * net(x).movedim(1, -1)).sample()
    y = right.where(torch.rand(right.shape) < 0.7, IGNORED)
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    module = RecipeModule(net, nn.CrossEntropyLoss(ignore_index=IGNORED), partial(torch.optim.SGD, lr=0.0))
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=list(plugins), num_sanity_val_steps=0, **quiet)
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    with torch.no_grad():
        z = module.eval().model(x).movedim(1, -1).flatten(0, -2)
    return module, z, y.flatten()


@pytest.mark.parametrize("places", [(), (5,)])
def test_every_number_is_of_the_other_labels(places):
    module, z, y = trained(places, F1Score(), Calibration())
    assert bool((z.argmax(1) == y)[y == IGNORED].any())
    known = y != IGNORED
    z, y = z[known], y[known]
    metrics, predicted = module.metrics, z.argmax(1)
    for split in ("train", "val"):
        assert metrics[f"{split}/acc"] == pytest.approx(float((predicted == y).float().mean()))
        assert metrics[f"{split}/loss"] == pytest.approx(float(nn.functional.cross_entropy(z, y)), rel=1e-5)
    assert metrics["val/f1"] == pytest.approx(f1_score(y, predicted, average="macro"))
    error = multiclass_calibration_error(z.softmax(1), y, 3, n_bins=15)
    assert metrics["calibration/ece"] == pytest.approx(float(error), abs=1e-5)
    assert module.evaluation.confusion()[""] == confusion_matrix(y, predicted, labels=range(3)).tolist()
    assert sum(module.evaluation.tallied()[""]["reliability"]["samples"]) == len(y)


def test_a_temperature_is_found_on_the_other_labels():
    module, z, y = trained((5,), Temperature())
    T = module.calibrated.of("inference/temperature")["T"]
    assert float(T) == pytest.approx(float(best_temperature(z[y != IGNORED], y[y != IGNORED])), rel=1e-4)


@pytest.mark.parametrize("places", [(), (5,)])
def test_members_of_an_ensemble_are_measured_on_the_other_labels(places):
    p, y = torch.randn(30, 3, *places).softmax(1), torch.randint(3, (30, *places))
    sums, known = sums_of(TASK, p, y), y != IGNORED
    flat = p.movedim(1, -1)[known]
    assert float(NUMBERS["classification"]["acc"](sums)) == pytest.approx(float((flat.argmax(1) == y[known]).float().mean()))
    assert float(NUMBERS["classification"]["nll"](sums)) == pytest.approx(
        float(nn.functional.nll_loss(flat.log(), y[known])), rel=1e-5
    )


def test_it_is_no_class_to_draw_or_to_count_and_no_data_of_a_checkpoint():
    y = torch.tensor([0, 1, 2, 2, 5, -1])
    setting = Setting((4,), (TASK,), training_targets=lambda: iter([{"": y}]))
    assert BalancedSampling().known(y, setting).tolist() == [False, True, True, True, False, False]
    assert count_classes(setting, [TASK])[""].tolist() == [0, 1, 2]
    assert setting.ignored == {"": IGNORED} and Task("", "classification", 3) == TASK and "ignored" not in TASK.plain()
