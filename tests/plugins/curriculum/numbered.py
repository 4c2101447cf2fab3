"""A small problem whose samples have numbers: trained on by one process or several, in one piece or many, and by hand."""

import lightning as L
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from plugins.base import Plugin, Stage
from plugins.curriculum.self_paced import SelfPaced
from recipes.data.loaders import StepLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule

SAMPLES, STEP = 48, 8
EPOCH = SAMPLES // STEP


class Seen(Plugin):
    """Keeps which samples each pass had, and what they are."""

    stage, group, option = Stage.DIAGNOSTICS, "test", "seen"
    tells_samples_apart = True

    def __init__(self):
        self.passes = []

    def penalty(self, module, batch, outputs):
        self.passes.append((batch.samples, batch.x))


def problem():
    """Samples of three classes, some harder than others, and weights of them."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, 4, generator=generator) * torch.rand(SAMPLES, 1, generator=generator) * 4
    return x, torch.randint(3, (SAMPLES,), generator=generator), torch.rand(SAMPLES, generator=generator) + 0.1


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Linear(4, 3)


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def of_each(output, target):
    """A loss that gives one value a sample, by somebody who knows nothing of `reduction`."""
    return functional.cross_entropy(output, target, reduction="none")


def trained(folder, steps, *plugins, parts=1, weighted=False, strategy="auto"):
    """The module after some steps."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    module = RecipeModule(net(), of_each, sgd, parts=parts)
    x, y, weight = problem()
    split = Split(x, {"": y}, weight=weight if weighted else None)
    loader = StepLoader(split, STEP // parts, 0, parts, world=world)
    trainer = L.Trainer(
        accelerator="cpu", devices=world, max_steps=steps, default_root_dir=folder, callbacks=list(plugins), strategy=strategy,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module


def self_paced_on_a_rank(folder, steps):
    """The weights after some steps of several processes, and what each remembers."""
    plugin = SelfPaced(0.4, 1.2)
    module = trained(folder, steps, plugin, weighted=True, strategy="ddp")
    return module.model.weight.detach(), plugin.state_dict()
