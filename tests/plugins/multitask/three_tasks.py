"""Three targets of handwritten characters, and trainings with them on any number of processes."""

import copy
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from plugins.base import Setting, Task
from plugins.multitask.dwa import DynamicWeightAverage
from plugins.multitask.gradnorm import GradNorm
from plugins.multitask.pcgrad import PCGrad
from plugins.multitask.uncertainty import UncertaintyWeights
from plugins.multitask.upgrad import UPGrad
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.l2 import L2Penalty
from plugins.regularizer.weight_noise import WeightNoise
from plugins.shards import whole
from plugins.wrapper.sam import SAM
from recipes.data.loaders import StepLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule
from recipes.engine.sharding import Sharded
from tests.plugins.conftest import Memory

CHARACTERS = Path(__file__).parents[2] / "data" / "omniglot.npz"
TASKS = (Task("alphabet", "classification", 5), Task("drawer", "classification", 20), Task("even", "classification", 2))
SETTING = Setting((1, 28, 28), TASKS)
STEP = 24  # samples


def characters(seed, samples=96):
    """A share of the characters."""
    arrays = np.load(CHARACTERS)
    chosen = np.random.default_rng(seed).permutation(len(arrays["x"]))[:samples]
    alphabet, drawer = (torch.from_numpy(arrays[name][chosen]) for name in ("alphabet", "drawer"))
    return Split(
        torch.from_numpy(arrays["x"][chosen]).unsqueeze(1), {"alphabet": alphabet, "drawer": drawer, "even": drawer % 2}
    )


def net(outputs=5, seed=0):
    """A small net."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, outputs))


def fit(model, split, *plugins, parts=1, steps=3, tasks=TASKS, kind=RecipeModule, lr=0.5, resume=None, **arguments):
    """A copy of the model trained with steps of 24 samples, over however many processes there are; what it logged is in `.log`."""
    module = kind(
        copy.deepcopy(model), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=lr), parts=parts, log_every_n_steps=1
    )
    module.setting = Setting((1, 28, 28), tuple(tasks))
    world = dist.get_world_size() if dist.is_initialized() else 1
    loader = StepLoader(split, STEP // parts, 0, parts, world=world)
    module.log = Memory()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "logger": module.log}
    given = {"devices": world, "strategy": "ddp", "use_distributed_sampler": False} if world > 1 else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(accelerator="cpu", max_steps=steps, callbacks=list(plugins), **{**quiet, **given, **arguments})
        trainer.fit(module, loader, ckpt_path=resume)
    return module


BESIDE = {  # what acts in a pass, beside it or around it
    "alone": lambda: [],
    "l2": lambda: [L2Penalty(0.1)],
    "sam": lambda: [SAM(0.05)],
    "all": lambda: [L2Penalty(0.1), SAM(0.05), Dropout(0.3), WeightNoise(0.01)],
}
OURS = {"pcgrad": PCGrad, "upgrad": UPGrad}
STATEFUL = {"uncertainty": UncertaintyWeights, "dwa": DynamicWeightAverage, "gradnorm": partial(GradNorm, lr=0.5)}
CASES = [(name, beside, parts) for name in OURS for beside in BESIDE for parts in (1, 2)]
CASES += [(name, "sam", parts) for name in STATEFUL for parts in (1, 2)]
LOGGED = ("cosine", "conflicts", "weight_alphabet", "weight_drawer")


def train_all(seed):
    """Weights and logged numbers after three steps of each case, on this process; beside DDP in parts of weights too."""
    found = {}
    for name, beside, parts in CASES:
        split = characters(seed, STEP if name == "dwa" else 96)  # weights change from the third epoch on
        module = fit(net(), split, {**OURS, **STATEFUL}[name](), *BESIDE[beside](), parts=parts)
        found[name, beside, parts] = (
            {key: value.clone() for key, value in module.model.state_dict().items()},
            [number for column in LOGGED for number in module.log.series(f"{name}/{column}")],
        )
    if dist.is_initialized():
        module = fit(net(), characters(seed), UncertaintyWeights(), SAM(0.05), strategy=Sharded())
        found["fsdp"] = {key: whole(value).clone() for key, value in module.model.state_dict().items()}
    return found


def assert_one_task_is_plain(make):
    """One task trains bit for bit as without the technique, and nothing is added to the model."""
    split = characters(0)
    split.targets = {"drawer": split.targets["drawer"]}
    plain, one = (fit(net(20), split, *plugins, tasks=TASKS[1:2], parts=2) for plugins in ((), (make(),)))
    first, second = plain.model.state_dict(), one.model.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
