"""Losses of anybody's own: right, or refused in one line before the first update."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import RecipeError, Task
from plugins.loss.by_task import LossByTask
from plugins.loss.cross_entropy import CrossEntropy
from plugins.loss.mse import MSE
from recipes.engine.losses import TaskLoss, name_of
from recipes.engine.module import RecipeModule

CLASSES, NUMBER, NUMBERS = Task("", "classification", 3), Task("", "regression", 1), Task("", "regression", 2)
X = torch.randn(48, 4)
LABELS = torch.randint(3, (48,))


def pearson(output, target):
    output, target = output - output.mean(0), target - target.mean(0)
    return 1 - (output * target).sum() / (output.norm() * target.norm())


def mean_of(loss, output, target):
    """What torch's losses return by themselves; ours are asked for it."""
    return loss(output, target, reduction="mean") if isinstance(loss, (CrossEntropy, MSE)) else loss(output, target)


def train(loss, targets, outputs, model=None):
    """The validation loss, and the model that has it."""
    module = RecipeModule(model or nn.Linear(4, outputs), loss, lambda groups: torch.optim.SGD(groups, lr=0.01))
    trainer = L.Trainer(
        max_steps=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    loader = DataLoader(TensorDataset(X, targets), batch_size=16)
    trainer.fit(module, loader, loader)
    return float(trainer.callback_metrics["val/loss"]), module.model


@pytest.mark.parametrize("shape", [(48,), (48, 1)])
@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        (nn.MSELoss(), lambda output, target: ((output - target) ** 2).mean()),
        (nn.L1Loss(), lambda output, target: (output - target).abs().mean()),
        (nn.HuberLoss(), functional.huber_loss),
        (lambda output, target: ((output - target) ** 4).mean(), lambda output, target: ((output - target) ** 4).mean()),
        (MSE(), functional.mse_loss),
        (LossByTask(), functional.mse_loss),
    ],
    ids=["mse", "l1", "huber", "own", "ours", "by_task"],
)
def test_one_number_never_broadcasts(shape, loss, reference):
    target = torch.randn(shape)
    found, model = train(loss, target, 1)
    with torch.no_grad():
        assert found == pytest.approx(float(reference(model(X).squeeze(1), target.reshape(48))), rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        functional.cross_entropy,
        lambda output, target: -(functional.log_softmax(output, 1) * target).sum(1).mean(),
    ],
    ids=["module", "smoothing", "function", "own"],
)
@pytest.mark.parametrize("outputs", [2, 5])
def test_a_loss_of_classes_is_refused_for_numbers(loss, outputs):
    with pytest.raises(RecipeError, match="is for classes.*take loss=mse"):
        train(loss, 50 * torch.randn(48, outputs), outputs)


def test_cross_entropy_of_one_number_is_refused():
    with pytest.raises(RecipeError, match="is for classes"):
        train(nn.CrossEntropyLoss(), torch.rand(48, 1), 1)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize("task", [NUMBER, NUMBERS], ids=["one", "two"])
@pytest.mark.parametrize(
    "loss",
    [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), functional.mse_loss, pearson, LossByTask()],
    ids=name_of,
)
def test_losses_of_numbers_are_taken(loss, task, scale):
    output, target = scale * torch.randn(8, task.outputs), scale * torch.randn(8, task.outputs)
    wrapped = TaskLoss(loss, task)
    own = loss.for_task(task) if hasattr(loss, "for_task") else loss
    for _ in range(2):
        torch.testing.assert_close(wrapped(output, target), mean_of(own, output, target), rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.MultiMarginLoss(),
        functional.cross_entropy,
        MSE(),
        LossByTask(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ],
    ids=name_of,
)
def test_losses_of_classes_are_taken(loss):
    output, target = torch.randn(8, 3), torch.randint(3, (8,))
    own = loss.for_task(CLASSES) if hasattr(loss, "for_task") else loss
    # sums of samples in another order: the last bit may differ
    torch.testing.assert_close(TaskLoss(loss, CLASSES)(output, target), mean_of(own, output, target), rtol=2e-6, atol=0)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.L1Loss(), nn.GaussianNLLLoss()], ids=name_of)
def test_a_loss_that_takes_no_labels_is_one_line(loss):
    with pytest.raises(RecipeError, match=r"does not take outputs \(16, 3\) and targets \(16,\).*loss=cross_entropy") as caught:
        train(loss, LABELS, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("samples", [1, 3])
def test_as_many_samples_as_classes_do_not_broadcast(samples):
    with pytest.raises(RecipeError, match="does not take outputs"):
        TaskLoss(nn.MSELoss(), CLASSES)(torch.randn(samples, 3), torch.randint(3, (samples,)))


@pytest.mark.parametrize(
    "loss",
    [lambda output, target: functional.one_hot(target, 3) - output, lambda output, target: 1.0, lambda output, target: None],
    ids=["a matrix", "float", "nothing"],
)
def test_what_is_no_scalar_is_one_line(loss):
    with pytest.raises(RecipeError, match="expected a scalar tensor"):
        train(loss, LABELS, 3)


@pytest.mark.parametrize("loss", [nn.NLLLoss(), functional.nll_loss], ids=["module", "function"])
def test_log_probabilities(loss):
    with pytest.raises(RecipeError, match="takes log-probabilities"):
        train(loss, LABELS, 3)
    found, model = train(loss, LABELS, 3, nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)))
    with torch.no_grad():
        assert found == pytest.approx(float(functional.nll_loss(model(X), LABELS)), rel=1e-5)


def test_the_numbers_drawn_are_those_of_the_loss_alone():
    def noisy(output, target):
        return functional.mse_loss(output + torch.randn_like(output), target)

    output, target = torch.randn(8, 2), torch.randn(8, 2)
    torch.manual_seed(3)
    found = [float(TaskLoss(noisy, NUMBERS)(output, target)), float(torch.rand(()))]
    torch.manual_seed(3)
    assert found == [float(noisy(output, target)), float(torch.rand(()))]
