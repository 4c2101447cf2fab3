import warnings
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import Batch, Setting, Task
from recipes.engine.module import RecipeModule


class Net(nn.Sequential):
    """A small net with what an attack must leave alone: running statistics and dropout."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(144, 5),
        )


class Lab:
    """Random images, and a small net trained on them with plugins."""

    setting = Setting((1, 8, 8), (Task("", "classification", 5),))

    def __init__(self):
        self.net = Net()
        self.x, self.y = torch.rand(48, 1, 8, 8), torch.randint(5, (48,))
        self.x[:, :, :2] = self.x[:, :, :2].round()  # pixels on the border of the valid range

    def batch(self, samples=48):
        labels = self.y[:samples]
        return Batch(self.x[:samples].clone(), {"": labels}, {"": labels})

    def module(self, *plugins, net=None, **arguments):
        module = RecipeModule(
            net or self.copy(), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), log_every_n_steps=1, **arguments
        )
        module.build(plugins, self.setting, devices=1)
        return module

    def copy(self):
        net = Net()
        net.load_state_dict(self.net.state_dict())
        return net

    def trainer(self, *plugins, **arguments):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        return L.Trainer(**{**quiet, "accelerator": "cpu", "max_steps": 6, "callbacks": list(plugins), **arguments})

    def loader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=16)

    def fit(self, *plugins, **arguments):
        """A module after a few steps, its trainer beside it."""
        module = RecipeModule(self.copy(), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), log_every_n_steps=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = self.trainer(*plugins, **arguments)
            trainer.fit(module, self.loader(), self.loader())
        return module, trainer


@pytest.fixture
def lab():
    return Lab()
