"""What each of two processes does that keep parts of the weights; the first one saves what came out."""

import torch
import torch.distributed as dist
from torch import nn

from plugins.base import Phase, Plugin, Stage
from plugins.shards import is_shard, kept_like, part, whole
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.engine.sharding import put_together, put_together_for_evaluation, shard
from recipes.engine.sync import share_buffers
from recipes.run import run, train
from tests.harness import config_of, fit, weights

STATEFUL = (
    *("averaging/ema", "guard/nan_rollback", "stopping/early", "wrapper/sam", "clipping/norm"),
    *("optimizer/adam", "scheduler/one_cycle", "regularizer/dropout", "augmentation/mixup"),
)
WORDS = ("trainer.val_every_n_steps=2", "guard.nan_rollback.every_n_steps=2", "stopping.patience=9")


class More(Plugin):
    """Train on with the weights as they are."""

    stage, group, option = Stage.DIAGNOSTICS, "test", "more"

    def next_phase(self, result):
        return Phase("more", max_steps=3) if result["phases"] == 1 else None


def do_all(folder):
    """Everything that needs two processes."""
    first = dist.get_rank() == 0
    found = {"cut": cut(folder), "tensors": tensors(), "evaluation": evaluation(), **resumed(folder)}
    found["phases"] = phases(folder)  # last: a run takes the processes' ties apart in the end
    if first:
        torch.save(found, folder / "found.pt")


def cut(folder):
    """How much of weights, gradients and optimizer state this process keeps, for each parameter."""
    module = fit(config_of(["optimizer/adam"], "trainer.strategy=fsdp"), folder / "cut", 2)
    optimizer = module.optimizers().optimizer
    return {
        name: (
            parameter.numel(),
            part(parameter).numel(),
            part(parameter.grad).numel(),
            part(optimizer.state[parameter]["exp_avg"]).numel(),
        )
        for name, parameter in module.model.named_parameters()
    }


def tensors():
    """Whether a tensor of any length comes back from its parts."""
    return {
        shape: is_shard(kept) and torch.equal(whole(kept), value)
        for shape in ((5, 3), (4,), (1,), (2, 1, 3))
        for layer in [layer_of(shape)]
        for value in [torch.randn(shape, generator=torch.Generator().manual_seed(0))]
        for kept in [kept_like(value, layer.weight)]
    }


def layer_of(shape):
    """A module with one weight, in parts."""
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.zeros(shape))
    shard(layer, torch.device("cpu"))
    return layer


def evaluation():
    """Passes forward that only one process makes, with running statistics that only the first one has."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Linear(5, 2))
    plain = nn.Sequential(*(model[i] for i in range(4)))
    x = torch.randn(6, 3)
    plain(x)
    expected = plain.eval()(x)
    model.train()
    shard(model, torch.device("cpu"))
    if dist.get_rank() == 1:
        model[1].running_mean.fill_(7)
    model.eval()
    share_buffers(model)
    with put_together_for_evaluation(model):
        x.requires_grad_()
        passes = [model(x) for _ in range(1 + 2 * dist.get_rank())]
        if dist.get_rank() == 1:  # as an attack does
            torch.autograd.grad(passes[-1].sum(), x)
    equal = torch.tensor(float(all(torch.allclose(each, expected) for each in passes)))
    dist.all_reduce(equal)
    cut_again = all(map(is_shard, model.parameters()))
    return {"equal": float(equal), "cut_again": cut_again}


def resumed(folder):
    """An uninterrupted run, one that goes on from its checkpoint, and one that goes on from a single process's."""
    config = config_of(STATEFUL, "trainer.strategy=fsdp", *WORDS)
    uninterrupted = fit(config, folder / "whole", 6, copy_at=3)
    again = fit(config, folder / "again", 6, resume=folder / "whole" / "copy.ckpt")
    from_one = fit(config, folder / "from_one", 6, resume=folder / "one" / "copy.ckpt")
    return {
        "whole": weights(uninterrupted),
        "again": weights(again),
        "from_one": weights(from_one),
        "metrics": [uninterrupted.metrics, again.metrics],
        "states": [
            put_together({plugin.state_key: plugin.state_dict() for plugin in m.plugins}) for m in (uninterrupted, again)
        ],
    }


def phases(folder):
    """The result of a run whose second phase goes on with the weights of the first."""
    build_plugins = run.build_plugins
    run.build_plugins = train.build_plugins = lambda config: [*build_plugins(config), More()]
    words = ["logger=[]", "trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.progress=false"]
    words.append("max_steps=4")
    path = folder / "phases"
    path.mkdir(exist_ok=True)
    dist.barrier()
    result = train.train(finish(Catalogue(), compose(words), words), path, words)
    return {name: result[name] for name in ("status", "phases", "steps", "metrics")}
