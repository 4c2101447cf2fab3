"""A small model with norm layers, trained on made classes, and the same by hand."""

import copy

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from recipes.engine.module import RecipeModule

STEPS_AN_EPOCH = 4


def optimizer(parameters):
    """One that moves a weight without any gradient, by weight decay and momentum, if it is given the chance."""
    return torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.1)


def batches():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(64, 6, generator=generator)
    return TensorDataset(x, torch.arange(64) % 3)


class Watch(L.Callback):
    """The model after each step, and in which mode it was."""

    def __init__(self):
        self.models = []

    def on_train_batch_end(self, trainer, module, *rest):
        self.models.append(copy.deepcopy(module.model))


@pytest.fixture
def net():
    torch.manual_seed(7)
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    )


@pytest.fixture
def train():
    """Trains a model with plugins, step by step through the data in their order; the model after each step."""

    def run(model, *plugins, steps=STEPS_AN_EPOCH, compile=False, make=optimizer):
        watch = Watch()
        loader = DataLoader(batches(), batch_size=64 // STEPS_AN_EPOCH)
        module = RecipeModule(model, nn.functional.cross_entropy, make, compile=compile)
        trainer = L.Trainer(
            max_steps=steps, accelerator="cpu", callbacks=[*plugins, watch], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(module, loader, loader)
        return watch.models

    return run


@pytest.fixture
def by_hand():
    """The same in plain torch: `resting` tells of each step which children of the model rest."""

    def run(model, resting, make=optimizer):
        model = copy.deepcopy(model)
        steps, models = make(model.parameters()), []
        loader = DataLoader(batches(), batch_size=64 // STEPS_AN_EPOCH)
        for step, names in enumerate(resting):
            x, y = list(loader)[step % STEPS_AN_EPOCH]
            for name, child in model.named_children():
                child.train(name not in names)
            output = model(x)
            trained = [p for name, child in model.named_children() if name not in names for p in child.parameters()]
            steps.zero_grad()
            gradients = torch.autograd.grad(nn.functional.cross_entropy(output, y), trained)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
            steps.step()
            models.append(copy.deepcopy(model))
        return models

    return run


@pytest.fixture
def same():
    """Whether models are alike step by step; what rests in one rests bit for bit in the other."""

    def compare(first, second):
        assert len(first) == len(second)
        for step, (one, other) in enumerate(zip(first, second, strict=True)):
            for name, value in other.state_dict().items():
                torch.testing.assert_close(one.state_dict()[name], value, msg=f"{name} in step {step}")
                if step and torch.equal(value, second[step - 1].state_dict()[name]):
                    assert torch.equal(one.state_dict()[name], first[step - 1].state_dict()[name]), name

    return compare
