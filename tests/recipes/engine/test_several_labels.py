"""Targets with several labels a sample: steps, metrics and techniques against the equations written out."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from plugins.augmentation.mixup import Mixup
from plugins.base import Batch, Plugin, RecipeError, Setting, Stage, Task
from plugins.inference.mc_dropout import MCDropout
from plugins.inference.temperature import Temperature
from plugins.loss.bce import BinaryCrossEntropy
from plugins.loss.by_task import LossByTask
from plugins.loss.cross_entropy import CrossEntropy
from plugins.loss.mse import MSE
from plugins.metric.cohen_kappa import CohenKappa
from plugins.metric.f1 import F1Score
from plugins.multitask.equal import EqualWeights
from plugins.regularizer.class_weights import ClassWeights
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.label_smoothing import LabelSmoothing
from plugins.sampling.balanced import BalancedSampling
from recipes.engine.losses import TaskLoss
from recipes.engine.module import RecipeModule

TASK = Task("", "multilabel", 3)
X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)) + X[:, :3] > 0.5


class Keeps(Plugin):
    """Keeps the batch as it goes into the pass."""

    stage, group, option = Stage.ADVERSARIAL, "diagnostics", "keeps"

    def transform_batch(self, batch, module):
        self.batch = batch
        return batch


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def fit(*plugins, loss=None, steps=3, parts=1, data=None, test=True):
    loader = DataLoader(data or TensorDataset(X, Y), batch_size=16)
    module = RecipeModule(net(), loss or LossByTask(), lambda groups: torch.optim.SGD(groups, 0.5), parts=parts)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(plugins),
    )
    trainer.fit(module, loader, loader)
    if test:
        trainer.test(module, loader, verbose=False)
    return module


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("loss", ["by_task", "bce", "torch"])
def test_a_step_is_that_of_the_mean_over_samples_and_labels(loss, parts):
    weight = None if loss == "by_task" else torch.tensor([1.0, 2.0, 5.0])
    plain = nn.BCEWithLogitsLoss(pos_weight=weight)
    chosen = {"by_task": LossByTask(), "bce": BinaryCrossEntropy(pos_weight=[1.0, 2.0, 5.0]), "torch": plain}[loss]
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for x, y in zip(X.split(16)[:3], Y.split(16)[:3], strict=True):
        optimizer.zero_grad()
        plain(model(x), y.float()).backward()
        optimizer.step()
    module = fit(loss=chosen, parts=parts)
    for found, expected in zip(module.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        z = model(X)
    assert module.metrics["test/loss"] == pytest.approx(plain(z, Y.float()).item(), rel=1e-5)
    assert module.metrics["test/acc"] == pytest.approx(((z >= 0) == Y).float().mean().item(), abs=1e-6)


def test_a_threshold_decides_what_is_predicted():
    module = fit(F1Score("micro"), loss=BinaryCrossEntropy(threshold=0.3))
    with torch.no_grad():
        predicted = module.model(X).sigmoid() >= 0.3
    assert module.setting.tasks[0].threshold == 0.3
    assert module.metrics["test/acc"] == pytest.approx((predicted == Y).float().mean().item(), abs=1e-6)
    right = (predicted & Y).sum()
    assert module.metrics["test/f1"] == pytest.approx((2 * right / (predicted.sum() + Y.sum())).item(), abs=1e-6)


def test_mixed_and_smoothed_targets_are_probabilities_of_labels():
    keeps = Keeps()
    fit(Mixup(1.0), LabelSmoothing(0.1), keeps, steps=1, test=False)
    targets, labels = keeps.batch.targets[""], keeps.batch.labels[""]
    assert labels.dtype == torch.bool and torch.equal(labels, Y[:16])
    assert targets.shape == (16, 3) and targets.min() >= 0.1 - 1e-6 and targets.max() <= 0.9 + 1e-6
    assert ((targets > 0.11) & (targets < 0.89)).any()


def test_probabilities_of_several_passes_are_those_of_sigmoids():
    module = fit(Dropout(0.5), MCDropout(3))
    batch = torch.zeros(7, 5)
    predicted = module.hooks["predict"][0].predict(module, batch)[""]
    assert predicted.min() > 0 and predicted.max() < 1 and not torch.allclose(predicted.sum(1), torch.ones(7))
    torch.testing.assert_close(TASK.probabilities(TASK.logits(predicted)), predicted)


@pytest.mark.parametrize("p", [0.0, 1e-30, 0.5, 1.0])
def test_probabilities_become_finite_logits(p):
    z = TASK.logits(torch.full((1, 3), p))
    assert z.isfinite().all()
    torch.testing.assert_close(z.sigmoid(), torch.full((1, 3), p), atol=2e-7, rtol=1e-5)


class TwoTargets(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return X[index], {"tags": Y[index], "kind": Y[index, 0].long()}


def test_beside_a_task_of_classes_each_is_measured_as_its_own():
    data = TwoTargets()
    module = fit(EqualWeights(), F1Score(), data=data)
    with torch.no_grad():
        outputs = module.outputs(X)
    tags = ((outputs["tags"] >= 0) == Y).float().mean().item()
    kind = (outputs["kind"].argmax(1) == Y[:, 0].long()).float().mean().item()
    assert module.metrics["test/tags/acc"] == pytest.approx(tags) and module.metrics["test/kind/acc"] == pytest.approx(kind)
    assert module.metrics["test/acc"] == pytest.approx((tags + kind) / 2)
    expected = functional.binary_cross_entropy_with_logits(outputs["tags"], Y.float()) + functional.cross_entropy(
        outputs["kind"], Y[:, 0].long()
    )
    assert module.metrics["test/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert {"test/tags/f1", "test/kind/f1"} <= module.metrics.keys()


def test_a_temperature_leaves_them_as_they_are():
    module = fit(EqualWeights(), Temperature(), data=TwoTargets())
    with torch.no_grad():
        outputs, predicted = module.outputs(X), module.hooks["predict"][0].predict(module, X)
    torch.testing.assert_close(predicted["tags"], outputs["tags"].sigmoid())
    T = module.calibrated.of("inference/temperature")["T"]
    torch.testing.assert_close(predicted["kind"], (outputs["kind"] / T).softmax(1))


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (ClassWeights(), "these samples have several labels: type loss=bce with loss.pos_weight"),
        (Temperature(), "scales logits of classes, and there are none to predict"),
        (BalancedSampling(), "the data has no classes"),
        (CohenKappa(), "measures predictions of one class a sample, and these samples have several labels"),
    ],
    ids=["class_weights", "temperature", "balanced", "cohen_kappa"],
)
def test_refuses_techniques_of_classes(plugin, message):
    module = RecipeModule(net(), LossByTask(), torch.optim.SGD)
    with pytest.raises(RecipeError, match=message):
        module.build([plugin], Setting((5,), (TASK,)), devices=1)


def test_refuses_losses_of_classes():
    with pytest.raises(RecipeError, match="MSE does not train logits.*take loss=bce"):
        TaskLoss(MSE(), TASK)
    with pytest.raises(RecipeError, match="CrossEntropy is for classes.*take loss=bce, which decides each label by itself"):
        TaskLoss(CrossEntropy(), TASK)(torch.randn(6, 3), Y[:6])


def test_refuses_a_model_of_another_width():
    other = TensorDataset(X, torch.cat([Y, Y], 1))
    with pytest.raises(RecipeError, match="now has 6: give the model an output for each"):
        fit(data=other)


def test_batches_of_a_loader_keep_their_kind():
    module = RecipeModule(net(), LossByTask(), torch.optim.SGD)
    module.build([], Setting((5,), (TASK,)), devices=1)
    assert isinstance(module.as_batch((X, Y)), Batch)
    with pytest.raises(RecipeError, match="was a multilabel so far"):
        module.as_batch((X, Y.float()))
