import logging
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from recipes.engine.module import RecipeModule

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Memory(DummyLogger):
    """A logger that remembers."""

    def __init__(self):
        super().__init__()
        self.rows, self.histograms = [], []

    def log_metrics(self, metrics, step=None):
        self.rows.append({**metrics, "at": step})

    def log_histograms(self, histograms, step):
        self.histograms.append({**histograms, "at": step})

    def series(self, name):
        """All values of a metric."""
        return [row[name] for row in self.rows if name in row]


class Save(L.Callback):
    """Saves a checkpoint at the end of an epoch."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


class Problem:
    """A small net with batch norm, its data (8 batches of 8 samples, the same in each epoch), and its training."""

    def __init__(self):
        self.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        self.loader, self.validation = (
            DataLoader(TensorDataset(torch.randn(n, 6), torch.randint(3, (n,))), batch_size=8) for n in (64, 24)
        )
        self.batches = list(self.loader)

    def copy(self):
        """The net as it was at first."""
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        model.load_state_dict(self.model.state_dict())
        return model

    def fit(
        self, *callbacks, steps=8, optimizer=None, loader=None, resume=None, save=None, scheduler=None, seed=0, **arguments
    ):
        """A copy of the net, trained; what it logged is in `self.log`. `save=(path, step)` saves a checkpoint."""
        self.log = Memory()
        callbacks = [*callbacks, Save(*save)] if save else list(callbacks)
        optimizer = optimizer or partial(torch.optim.SGD, lr=0.1, momentum=0.9)
        module = RecipeModule(self.copy(), nn.functional.cross_entropy, optimizer, scheduler, seed=seed, log_every_n_steps=1)
        quiet = {
            "logger": self.log,
            "num_sanity_val_steps": 0,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = L.Trainer(**{**quiet, "accelerator": "cpu", "max_steps": steps, "callbacks": callbacks, **arguments})
            trainer.fit(module, loader or self.loader, self.validation, ckpt_path=resume)
        return module


@pytest.fixture
def problem():
    return Problem()


@pytest.fixture
def weights():
    """A copy of a module's or model's tensors by name."""

    def copy(module):
        model = module.model if isinstance(module, RecipeModule) else module
        return {name: value.clone() for name, value in model.state_dict().items()}

    return copy


@pytest.fixture
def same():
    """Whether two dicts of tensors are equal bit for bit."""
    return lambda first, second: (
        first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    )
