"""Short trainings with losses that weigh their samples: of one process or several, in one piece or many, and written out."""

import copy
import warnings
from functools import partial

import lightning as L
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import Plugin, Stage
from plugins.loss.by_task import LossByTask
from plugins.loss.mse import MSE
from recipes.engine.module import RecipeModule

WEIGHT, OF_COLUMNS = torch.tensor([1.0, 3.0, 0.2]), torch.tensor([0.5, 4.0])
SAMPLES, STEPS = 24, 3
EQUAL = {"rtol": 1e-6, "atol": 1e-6}


def of_samples(output, target):
    """A value a sample, by somebody who knows nothing of `reduction`."""
    return functional.cross_entropy(output, target, reduction="none")


def hard_ones(output, target, reduction="mean"):
    """A loss of somebody's own with torch's `reduction`."""
    values = functional.cross_entropy(output, target, reduction="none")
    values = (1 - (-values).exp()) * values
    return values if reduction == "none" else getattr(values, reduction)()


CLASSES = {
    "plain": nn.CrossEntropyLoss(),
    "weights": nn.CrossEntropyLoss(WEIGHT),
    "a class of no weight": nn.CrossEntropyLoss(torch.tensor([1.0, 0.0, 1.0])),
    "ignore_index": nn.CrossEntropyLoss(ignore_index=1),
    "ignore_index and weights": nn.CrossEntropyLoss(WEIGHT, ignore_index=0, label_smoothing=0.1),
    "smoothing and weights": nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.2),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "sum of weights": nn.CrossEntropyLoss(WEIGHT, ignore_index=2, reduction="sum"),
    "nll": nn.NLLLoss(WEIGHT),
    "margin": nn.MultiMarginLoss(weight=WEIGHT),
    "function": partial(functional.cross_entropy, weight=WEIGHT, ignore_index=1),
    "own": hard_ones,
    "value a sample": of_samples,
    "by_task": LossByTask(),
}
NUMBERS = {
    "mse": nn.MSELoss(),
    "sum of squares": nn.MSELoss(reduction="sum"),
    "bce": nn.BCEWithLogitsLoss(weight=OF_COLUMNS, pos_weight=torch.tensor([2.0, 0.3])),
    "kl": nn.KLDivLoss(reduction="batchmean"),
    "ours": MSE(),
}
LOSSES = {**CLASSES, **NUMBERS}


class Heavy(Plugin):
    """Weights of samples, as a technique sets them: by their first number."""

    stage, group, option = Stage.TARGETS, "test", "heavy"

    def transform_batch(self, batch, module):
        batch.weight = batch.weighted("", heavy(batch.x))
        return batch


def heavy(x):
    return x[:, 0].abs() + (x[:, 1] > 0)


def data(name):
    """Samples, sorted so that pieces of a batch differ as much as they can."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, 4, generator=generator)
    if name in CLASSES:
        return x, torch.randint(3, (SAMPLES,), generator=generator).sort().values
    y = torch.rand(SAMPLES, 2, generator=generator).sort(0).values
    return x, y


def model(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layer = nn.Linear(4, 3 if name in CLASSES else 2)
    return nn.Sequential(layer, nn.LogSoftmax(1)) if name in ("nll", "kl") else layer


def optimizer(parameters):
    return torch.optim.SGD(parameters, 0.02, momentum=0.9)


def train(name, x, y, parts=1, plugins=(), steps=STEPS, model=None, strategy="auto", loss=None, **options):
    """The module after some steps, each on all samples of this process, and the trainer."""
    own = globals()["model"](name) if model is None else model
    module = RecipeModule(own, copy.deepcopy(loss or LOSSES[name]), optimizer, parts=parts, standardize_targets=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_steps=steps, accelerator="cpu", devices=dist.get_world_size() if dist.is_initialized() else 1, callbacks=list(plugins),
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, strategy=strategy,
            use_distributed_sampler=False, **options,
        )  # fmt: skip
        trainer.fit(module, DataLoader(TensorDataset(x, y), len(x)), DataLoader(TensorDataset(x, y), 5))
    return module


def numbers(module):
    return flat(module.model)


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def on_a_rank(parts):
    """Weights and metrics of each loss, of processes that have the samples in turn: the first has other classes than the last."""
    found = {}
    for name in LOSSES:
        x, y = (values.chunk(dist.get_world_size())[dist.get_rank()] for values in data(name))
        for plugins in ((), (Heavy(),)):
            module = train(name, x, y, parts, plugins, strategy="ddp")
            found[name, len(plugins)] = numbers(module).tolist(), module.metrics
    return found
