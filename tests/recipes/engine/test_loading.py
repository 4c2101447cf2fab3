"""Loaders, losses and schedules of somebody's own: what the training asks of them, and what is refused."""

import copy
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from plugins.base import RecipeError
from plugins.loss.by_task import LossByTask
from plugins.scheduler.cosine import CosineDecay
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule

SGD = partial(torch.optim.SGD, lr=0.1)


def trainer_of(**arguments):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", **quiet, **arguments)


def fit(module, *loaders, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_of(**{"max_steps": 6, **arguments}).fit(module, *loaders)
    return module


def samples(size=24):
    return Split(torch.randn(size, 6), {"": torch.randint(3, (size,))})


def test_epochs_of_a_loader_without_a_length_are_no_number_of_steps():
    """A schedule over one step would have ended after the first."""

    class Few(IterableDataset):
        def __iter__(self):
            return iter([(torch.randn(5), torch.randn(1))] * 8)

    def trained(scheduler):
        module = RecipeModule(nn.Linear(5, 1), LossByTask(), SGD, scheduler)
        return fit(module, DataLoader(Few(), batch_size=4), max_steps=-1, max_epochs=2)

    with pytest.raises(RecipeError, match="must know where training ends"):
        trained(CosineDecay())
    assert trained(None).steps_done == 4


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.HuberLoss(), LossByTask()])
def test_targets_in_64_bits_are_learned_as_those_in_32(loss):
    x, y, start, found = torch.randn(16, 5), torch.randn(16, 1), nn.Linear(5, 1), []
    for target in (y, y.double()):
        module = RecipeModule(copy.deepcopy(start), loss, SGD, standardize_targets=False)
        fit(module, DataLoader(TensorDataset(x, target), batch_size=16), max_steps=5)
        found.append(module.model.weight.detach().clone())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_module_that_was_built_to_be_validated_is_not_trained_with_the_statistics_of_that():
    x, y = torch.randn(16, 5), 100 + torch.randn(16, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    module = RecipeModule(nn.Linear(5, 1), LossByTask(), SGD)
    trainer_of().validate(module, loader, verbose=False)
    with pytest.raises(RecipeError, match="has learned statistics of the data from the loader of trainer.validate: make a new"):
        fit(module, loader)


def test_a_loader_that_another_training_was_told_of_is_read_from_its_begin():
    """Its place, and how often each batch is repeated, are those of the other module."""
    x, y = torch.randn(40, 5), 100 * torch.randn(40, 1)
    loader, found = StepLoader(Split(x, {"": y}), 4, 0), []
    for given in (loader, loader, StepLoader(Split(x, {"": y}), 4, 0)):
        module = RecipeModule(nn.Linear(5, 1), LossByTask(), partial(torch.optim.SGD, lr=0.001))
        fit(module, given, max_steps=7)
        found.append((module.model.target_mean, [p.detach() for p in module.parameters()]))
        loader.repeats = 3
    assert torch.equal(found[1][0], found[2][0])
    assert all(torch.equal(a, b) for a, b in zip(found[1][1], found[2][1], strict=True))


class Kept(L.LightningDataModule):
    """Makes its loader anew each time it is asked for."""

    def __init__(self, split):
        super().__init__()
        self.split = split

    def train_dataloader(self):
        return StepLoader(self.split, 8, 0)


class Order(L.Callback):
    """Keeps the batches."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.seen.append(batch[0])


@pytest.mark.parametrize("further", [{}, {"reload_dataloaders_every_n_epochs": 1}])
def test_the_loader_of_a_data_module_is_told_where_the_training_is(further):
    split, found = samples(), []
    for make in (lambda: StepLoader(split, 8, 0), lambda: Kept(split)):
        order = Order()
        fit(RecipeModule(nn.Linear(6, 3), functional.cross_entropy, SGD), make(), callbacks=[order], **further)
        found.append(torch.stack(order.seen))
    assert torch.equal(*found) and not torch.equal(found[0][:3], found[0][3:])


def test_epochs_of_a_part_of_the_steps_are_whole_ones_or_refused():
    module, loader = RecipeModule(nn.Linear(6, 3), functional.cross_entropy, SGD), StepLoader(samples(40), 4, 0)
    with pytest.raises(
        RecipeError, match="limit_train_batches=3 takes 3 of the 10 steps of a StepLoader's epoch.* use max_steps"
    ):
        fit(module, loader, limit_train_batches=3)
    module = RecipeModule(nn.Linear(6, 3), functional.cross_entropy, SGD)
    fit(module, loader, EvaluationLoader(samples()), max_steps=-1, max_epochs=2, limit_train_batches=5)
    assert module.steps_done == 10


class Scaled(nn.Module):
    """A loss with a number that somebody would have learned."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, output, target):
        return functional.cross_entropy(self.scale * output, target)


def test_a_loss_with_parameters_that_nothing_trains_is_refused():
    loss, loader = Scaled(), StepLoader(samples(), 8, 0)
    with pytest.raises(RecipeError, match="scale of the loss Scaled is a parameter, and only those of the model are trained"):
        fit(RecipeModule(nn.Linear(6, 3), loss, SGD), loader)
    fit(RecipeModule(nn.Linear(6, 3), loss.requires_grad_(False), SGD), loader)


def test_a_schedule_that_goes_by_the_validation_is_refused_without_one():
    def plateau(optimizer, steps):
        return ReduceLROnPlateau(optimizer)

    loader = StepLoader(samples(), 8, 0)
    with pytest.raises(RecipeError, match="ReduceLROnPlateau is stepped by val/loss, and nothing is validated"):
        fit(RecipeModule(nn.Linear(6, 3), functional.cross_entropy, SGD, plateau), loader)
    fit(RecipeModule(nn.Linear(6, 3), functional.cross_entropy, SGD, plateau), loader, EvaluationLoader(samples()))


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_whole_numbers_are_learned(kind):
    x, y, found = torch.randn(16, 6), torch.randint(3, (16,)), []
    for labels in (y, y.to(kind)):
        model = nn.Linear(6, 3)
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        fit(RecipeModule(model, nn.CrossEntropyLoss(), SGD), DataLoader(TensorDataset(x, labels), batch_size=8))
        found.append(model.weight.detach().clone())
    assert torch.equal(*found)


def test_inputs_alone_are_predicted_as_those_with_targets():
    x, y = torch.randn(20, 6), torch.randint(3, (20,))
    module = fit(RecipeModule(nn.Linear(6, 3), functional.cross_entropy, SGD), DataLoader(TensorDataset(x, y), batch_size=8))
    found = [
        torch.cat([batch[""] for batch in trainer_of().predict(module, DataLoader(data, batch_size=8))])
        for data in (TensorDataset(x, y), TensorDataset(x), x)
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], module.model(x).detach().softmax(1))
