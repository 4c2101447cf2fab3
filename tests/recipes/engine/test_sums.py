"""Losses that are a number of a batch alone: whether they are means is asked of their values. And labels that name no class."""

import logging
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from plugins.augmentation.cutmix import CutMix
from plugins.augmentation.mixup import Mixup
from plugins.base import RecipeError, Setting, Task
from plugins.loss.by_task import LossByTask
from plugins.loss.cross_entropy import CrossEntropy
from plugins.loss.mse import MSE
from plugins.regularizer.label_smoothing import LabelSmoothing
from recipes.data.base import Data
from recipes.data.split import Split
from recipes.engine.losses import TaskLoss
from recipes.engine.module import RecipeModule
from recipes.engine.sums import is_mean_over_samples, takes_labels_like_probabilities

CLASSES, NUMBER, NUMBERS = Task("", "classification", 3), Task("", "regression", 1), Task("", "regression", 2)
WEIGHT = torch.tensor([1.0, 3.0, 0.2])


def focal(output, target):
    chance = output.softmax(1).gather(1, target[:, None]).squeeze(1)
    return ((1 - chance) ** 2 * functional.cross_entropy(output, target, reduction="none")).mean()


def weighted_mean(output, target):
    return (WEIGHT[target] * functional.cross_entropy(output, target, reduction="none")).mean()


def jittered(output, target):
    return functional.cross_entropy(output + torch.randn_like(output), target)


def dropped(output, target):
    return functional.cross_entropy(functional.dropout(output, 0.3), target)


def drawn_by_shape(output, target):
    return functional.cross_entropy(output * torch.rand(len(output), 1), target)


def rescaled(output, target):
    return functional.cross_entropy(output, target) * torch.rand(())


class OwnGenerator:
    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, output, target):
        return functional.cross_entropy(output + torch.rand(output.shape, generator=self.generator), target)


def contrastive(output, target):
    return functional.cross_entropy(output @ output.T, torch.arange(len(output))) + functional.cross_entropy(output, target)


def weighted_and_jittered(output, target):
    return functional.cross_entropy(output + torch.randn_like(output), target, WEIGHT)


def root(output, target):
    return (output - target).square().mean().sqrt()


def pearson(output, target):
    output, target = output - output.mean(0), target - target.mean(0)
    return 1 - (output * target).sum() / (output.norm() * target.norm())


def of_positive(output, target):
    return ((target > 0) * (output - target) ** 2).sum() / (target > 0).sum()


OURS = [partial(loss, reduction="mean") for loss in (CrossEntropy(), MSE(), LossByTask())]
MEANS = [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), nn.MultiMarginLoss(), *OURS, focal, weighted_mean, jittered, dropped, drawn_by_shape, rescaled, OwnGenerator()]  # fmt: skip
OTHERS = [nn.CrossEntropyLoss(WEIGHT), nn.CrossEntropyLoss(reduction="sum"), nn.CrossEntropyLoss(ignore_index=1), contrastive,
          nn.CrossEntropyLoss(torch.tensor([1, 0, 1.0])), weighted_and_jittered]  # fmt: skip
NUMBERS_ALONE = [contrastive, weighted_and_jittered]  # of these, those that cannot be asked for the values of samples
OUTPUTS = {
    "many": lambda width: torch.randn(16, width),
    "all equal": lambda width: torch.zeros(16, width),
    "one": lambda width: torch.randn(1, width),
    "short": lambda width: torch.randn(16, width).bfloat16(),
}


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_classes(outputs):
    output = OUTPUTS[outputs](3)
    labels = torch.randint(3, (len(output),))
    for few in (labels, labels * 0):  # also where the batch has one class
        assert [loss for loss in MEANS if not is_mean_over_samples(loss, output, few, CLASSES)] == []
        assert [loss for loss in OTHERS if is_mean_over_samples(loss, output, few, CLASSES)] == []


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("task", [NUMBER, NUMBERS])
def test_numbers(outputs, task):
    output = OUTPUTS[outputs](task.outputs)
    for target in (torch.randn(output.shape), torch.ones(output.shape)):
        means = [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), OURS[1], nn.BCEWithLogitsLoss(), nn.PoissonNLLLoss()]
        assert [loss for loss in means if not is_mean_over_samples(loss, output, target, task)] == []
        others = [root, pearson, nn.MSELoss(reduction="sum")]
        assert [loss for loss in others if is_mean_over_samples(loss, output, target, task)] == []
    assert not is_mean_over_samples(of_positive, output, torch.zeros(output.shape), task)


def test_log_probabilities_and_probabilities_stay_what_they_are():
    output, labels = torch.randn(8, 3).log_softmax(1), torch.randint(3, (8,))
    assert is_mean_over_samples(nn.NLLLoss(), output, labels, CLASSES)
    assert not is_mean_over_samples(nn.NLLLoss(WEIGHT), output, labels, CLASSES)
    one = torch.rand(8, 1)
    assert is_mean_over_samples(nn.BCELoss(), one, (one > 0.5).float(), NUMBER)
    assert not is_mean_over_samples(nn.BCELoss(reduction="sum"), one, (one > 0.5).float(), NUMBER)


def test_weights_of_16_bits_show():
    output, labels = torch.randn(8, 3).bfloat16(), torch.randint(3, (8,))
    assert is_mean_over_samples(nn.CrossEntropyLoss(torch.ones(3).bfloat16()), output, labels, CLASSES)
    assert not is_mean_over_samples(nn.CrossEntropyLoss(WEIGHT.bfloat16()), output, labels, CLASSES)


def test_one_class_among_many_shows():
    output, labels, task = torch.randn(8, 300), torch.randint(300, (8,)), Task("", "classification", 300)
    weight = torch.ones(300)
    assert is_mean_over_samples(nn.CrossEntropyLoss(weight), output, labels, task)
    weight[torch.randint(300, ())] = 1.1
    # a sample whose loss is just the mean shows nothing, whatever it weighs
    draws = [torch.randn(8, 300) for _ in range(4)]
    assert not all(is_mean_over_samples(nn.CrossEntropyLoss(weight), output, labels, task) for output in draws)


def test_probabilities_on_the_scale_of_labels():
    output = torch.randn(8, 3)
    for loss in (nn.CrossEntropyLoss(), *OURS, jittered, nn.CrossEntropyLoss(label_smoothing=0.1)):
        assert takes_labels_like_probabilities(loss, output, CLASSES)
    for loss in (nn.CrossEntropyLoss(WEIGHT), nn.CrossEntropyLoss(2 * torch.ones(3)), weighted_and_jittered):
        assert not takes_labels_like_probabilities(loss, output, CLASSES)


def of_whole_numbers(output, target):
    assert torch.equal(target, target.round())
    return (output - target).abs().mean()


def of_sixteen(output, target):
    assert len(output) == 16
    return (output - target).abs().mean()


def test_a_loss_that_does_not_take_everything():
    output, target = torch.randn(16, 1), torch.arange(16.0)[:, None]
    assert is_mean_over_samples(of_whole_numbers, output, target, NUMBER)
    assert not is_mean_over_samples(of_sixteen, output, target, NUMBER)


def test_asking_leaves_no_trace():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, output, target):
            self.calls += 1
            return functional.cross_entropy(output * torch.rand(()), target)

    loss, state = Counting(), torch.get_rng_state()
    is_mean_over_samples(loss, torch.randn(8, 3), torch.randint(3, (8,)), CLASSES)
    assert loss.calls == 0
    torch.set_rng_state(state)
    is_mean_over_samples(jittered, torch.ones(8, 3), torch.zeros(8, dtype=torch.long), CLASSES)
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------ in a run


def fit(loss, *plugins, steps=2, targets=None, outputs=3, model=None, x=None, **options):
    x = torch.randn(24, 4) if x is None else x
    targets = torch.arange(24) % 3 if targets is None else targets
    loader = DataLoader(TensorDataset(x, targets), batch_size=12)
    module = RecipeModule(model or nn.Linear(4, outputs), loss, lambda groups: torch.optim.SGD(groups, 0.1), **options)
    module.before = [weight.detach().clone() for weight in module.model.parameters()]
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    try:
        trainer.fit(module, loader, loader)
    except RecipeError:
        assert trainer.global_step == 0  # before the first update
        assert all(torch.equal(*pair) for pair in zip(module.before, module.model.parameters(), strict=True))
        raise
    return module


@pytest.mark.parametrize("loss", NUMBERS_ALONE)
def test_accumulation_is_refused(loss):
    with pytest.raises(RecipeError, match="is no mean over samples") as told:
        fit(loss, parts=2)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("loss", NUMBERS_ALONE)
def test_without_accumulation_it_is_told(loss, caplog):
    with caplog.at_level(logging.WARNING, "recipes"):
        fit(loss)
    assert [record.message for record in caplog.records if "no mean over samples" in record.message] != []


def test_numbers_are_refused_too():
    with pytest.raises(RecipeError, match="is no mean over samples"):
        fit(root, targets=torch.randn(24, 1), outputs=1, parts=2)


def test_several_devices_are_refused():
    """What `build` tells of devices reaches the loss."""
    module = RecipeModule(nn.Linear(4, 3), weighted_and_jittered, lambda groups: torch.optim.SGD(groups, 0.1))
    module.build([], Setting((4,), (CLASSES,)), devices=2)
    with pytest.raises(RecipeError, match="with 2 devices the mean"):
        module.losses(module.outputs(torch.randn(8, 4)), {"": torch.randint(3, (8,))})
    TaskLoss(nn.CrossEntropyLoss(), CLASSES, "2 devices")(torch.randn(8, 3), torch.randint(3, (8,)))


def of_other_scale(output, target):
    return functional.cross_entropy(output, target, WEIGHT)


@pytest.mark.parametrize("plugin", [LabelSmoothing(0.1), Mixup(1.0), CutMix(1.0)], ids=lambda plugin: plugin.option)
def test_softened_targets_of_another_scale_are_refused(plugin):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(24, 1, 2, 2)
    with pytest.raises(RecipeError, match="softened targets"):
        fit(of_other_scale, plugin, model=model, x=x)
    fit(nn.CrossEntropyLoss(), plugin, model=model, x=x)
    fit(nn.CrossEntropyLoss(WEIGHT), plugin, model=model, x=x)  # whose values of samples can be asked for


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize("bad", [-100, -1, 3, 255])
@pytest.mark.parametrize("loss", [LossByTask(), nn.CrossEntropyLoss(), MSE()])
@pytest.mark.parametrize("place", [0, 20], ids=["first batch", "a later one"])
def test_labels_that_name_no_class(bad, loss, place):
    targets = torch.arange(24) % 3
    targets[place] = bad
    for plugins in ((), (LabelSmoothing(0.1),), (Mixup(1.0),)):
        if bad == getattr(loss, "ignore_index", None):
            fit_labels(loss, targets, *plugins)  # tests/recipes/engine/test_samples.py compares it with the samples dropped
            continue
        with pytest.raises(RecipeError, match=f"holds the label {bad}, expected labels 0 to 2: .*drop these samples") as told:
            fit_labels(loss, targets, *plugins)
        assert "\n" not in str(told.value)


def fit_labels(loss, targets, *plugins):
    loader = DataLoader(TensorDataset(torch.randn(24, 4), targets), batch_size=12)
    module = RecipeModule(nn.Linear(4, 3), loss, lambda groups: torch.optim.SGD(groups, 0.1))
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)


def test_labels_of_a_data_set_are_looked_at_when_it_is_loaded():
    class Own(Data):
        def load(self):
            return Split(torch.randn(30, 4), {"y": labels}), None

    labels = torch.arange(30) % 3
    Own().setup()
    labels[5] = -100
    with pytest.raises(RecipeError, match="target y holds the label -100"):
        Own().setup()
