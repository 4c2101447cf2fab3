# %% [markdown]
# # Two techniques on a model of your own
# The techniques are callbacks of Lightning: they work on any `nn.Module` and any loader. Run this file as a script, or cell by cell.

# %%
from __future__ import annotations

import logging
import statistics
import warnings
from functools import partial

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_recipes import Dropout, Mixup, Plugin, RecipeModule

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
for message in (".*does not have many workers", ".*LeafSpec", "The `srun` command is available"):
    warnings.filterwarnings("ignore", message=message)  # Lightning's, of no importance here
torch.set_num_threads(1)  # several would wait for each other longer than a model this small takes

# %% [markdown]
# ## Data and model
# 1,797 images of handwritten digits, split once: every training sees the same test samples.

# %%
digits = load_digits()
samples = TensorDataset(torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target))
training, validation, testing = random_split(samples, [1200, 200, 397], torch.Generator().manual_seed(0))


def model(seed: int) -> nn.Module:
    """A small network, with initial weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


# %% [markdown]
# ## One training
# `RecipeModule` is what makes techniques right together; the rest is Lightning's.


# %%
def accuracy(*techniques: Plugin, seed: int = 0, epochs: int = 4) -> float:
    """The share of test samples that are recognized after training with some techniques."""
    module = RecipeModule(model(seed), nn.CrossEntropyLoss(), partial(torch.optim.Adam, lr=3e-3), seed=seed)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(techniques),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    shuffled = DataLoader(training, 32, shuffle=True, generator=torch.Generator().manual_seed(seed), drop_last=True)
    trainer.fit(module, shuffled, DataLoader(validation, 200))
    (metrics,) = trainer.test(module, DataLoader(testing, 397), verbose=False)
    return metrics["test/acc"]


# %% [markdown]
# ## Each alone, and both together
# The same seeds for everybody: what is compared are differences between trainings that begin alike. A callback serves one training, so each
# gets new ones.

# %%
SEEDS = (0, 1, 2)
CHOICES = {
    "nothing": lambda: [],
    "dropout": lambda: [Dropout(p=0.2)],
    "mixup": lambda: [Mixup(alpha=0.2)],
    "dropout and mixup": lambda: [Dropout(p=0.2), Mixup(alpha=0.2)],
}

found = {name: [accuracy(*make(), seed=seed) for seed in SEEDS] for name, make in CHOICES.items()}

print(f"{'test/acc':<20}{'mean':>8}{'± sd':>8}{'difference':>12}")
for name, values in found.items():
    differences = [value - other for value, other in zip(values, found["nothing"], strict=True)]
    print(f"{name:<20}{statistics.mean(values):8.4f}{statistics.stdev(values):8.4f}{statistics.mean(differences):+12.4f}")
