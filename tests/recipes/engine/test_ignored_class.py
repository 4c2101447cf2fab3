"""A label that the loss leaves out and that is the number of a class, such as a background: no metric counts it."""

from functools import partial

import lightning as L
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from plugins.base import Plugin, RecipeError, Setting, Stage, Task
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


class Heads(Plugin):
    """A head for each task, as wide as what the loader tells."""

    stage, group, option = Stage.LAYERS, "test", "heads"

    def prepare(self, setting):
        self.tasks = setting.tasks

    def transform_model(self, model):
        return Headed(model, self.tasks)


class Headed(nn.Module):
    def __init__(self, trunk, tasks):
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleDict({task.name: nn.Linear(8, task.outputs) for task in tasks})

    def forward(self, x):
        return {name: head(self.trunk(x)) for name, head in self.heads.items()}


@pytest.mark.parametrize("known", [20, 40])
def test_classes_are_counted_over_batches_of_which_some_have_no_known_label(known):
    labels = {"a": torch.arange(40) % 3, "b": (torch.arange(40) % 4).where(torch.arange(40) >= known, -100)}
    samples = [(torch.randn(4), {name: label[index] for name, label in labels.items()}) for index in range(40)]
    module = RecipeModule(nn.Linear(4, 8), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1))
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[Heads()], **quiet)
    if known == 40:
        with pytest.raises(RecipeError, match="target b holds no label but -100, which the loss leaves out"):
            trainer.fit(module, DataLoader(samples, batch_size=10))
        return
    trainer.fit(module, DataLoader(samples, batch_size=10))
    assert [task.outputs for task in module.setting.tasks] == [3, 4] and trainer.global_step == 4
