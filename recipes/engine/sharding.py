"""`trainer=fsdp`: each process keeps a part of every parameter, its gradient and its optimizer state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import OptimizerWrapper, RecipeError
from plugins.shards import is_shard, kept_like, whole
from recipes.engine.lightning_private import move_state

# which would leave techniques parts that they take for the whole
LIGHTNINGS = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Sharded(DDPStrategy):
    """Processes as of DDP, with torch's `fully_shard` in place of whole copies of the model; on GPUs and on the CPU.

    A block of the model is put together for its forward pass and again for its backward pass, and gradients are averaged
    into the parts. An evaluation puts the whole model together once. Checkpoints hold whole tensors, as those of every
    run do, so they are read with any number of processes.
    """

    def setup(self, trainer: L.Trainer) -> None:
        """Cut up the model before the optimizer is made, so that its state is cut up too."""
        assert self.accelerator is not None and self.lightning_module is not None
        self.accelerator.setup(trainer)
        model, fits = self.lightning_module.model, trainer.state.fn == TrainerFn.FITTING
        assert isinstance(model, nn.Module)
        if not is_sharded(model):
            self.precision_plugin.convert_module(self.lightning_module)
            self.model_to_device()
            if fits:
                if self._layer_sync:  # trainer.sync_batchnorm
                    self._layer_sync.apply(model)
                shard(model, self.root_device)
        if fits:
            self.setup_optimizers(trainer)
            for optimizer in self.optimizers:
                while isinstance(optimizer, OptimizerWrapper):
                    optimizer = optimizer.optimizer
                optimizer.register_load_state_dict_pre_hook(_cut_optimizer_state)
        self.setup_precision_plugin()
        if fits:
            move_state(self.optimizers, self.root_device)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Add gradients up on each process, for a backward pass that is not the last one of its step."""
        assert self.lightning_module is not None
        model: Any = self.lightning_module.model
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Have the first process save whole tensors."""
        super().save_checkpoint(put_together(checkpoint, keep=self.is_global_zero), filepath, storage_options)

    def teardown(self) -> None:
        """Leave the parts where they are: the model is evaluated yet."""
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


def make_strategy(options: Mapping[str, Any]) -> Sharded | str:
    """What Lightning's Trainer takes for `trainer.strategy`; what cannot be right is refused."""
    name = str(options["strategy"])
    if name != "fsdp":
        if name.startswith(("fsdp", "deepspeed")):
            raise RecipeError(f"trainer.strategy={name} is not offered: type trainer=fsdp, or trainer=ddp")
        return name
    if options["precision"] == "16-mixed":
        raise RecipeError("trainer=fsdp cannot be combined with trainer.precision=16-mixed: take bf16-mixed or 32-true")
    if options["compile"]:
        raise RecipeError("trainer=fsdp cannot be combined with trainer.compile=true: leave one of the two out")
    try:
        from torch.distributed.fsdp import fully_shard  # noqa: F401
    except ImportError:
        raise RecipeError(f"trainer=fsdp needs torch 2.6 or newer, this is {torch.__version__}: type trainer=ddp") from None
    return Sharded()


def shards(strategy: Strategy) -> bool:
    """Whether processes will keep parts of the model; refuses the ways of Lightning's in which they do."""
    if isinstance(strategy, LIGHTNINGS):
        raise RecipeError(
            f"{type(strategy).__name__} is not offered: take L.Trainer(strategy=recipes.engine.sharding.Sharded())"
        )
    return isinstance(strategy, Sharded)


def is_sharded(model: nn.Module) -> bool:
    """Whether processes keep parts of this model."""
    return hasattr(model, "unshard")


def shard(model: nn.Module, device: torch.device) -> None:
    """Keep this process's part of each parameter."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise RecipeError(f"trainer.strategy=fsdp cannot cut up {name}, which is a single number: take trainer=ddp")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)  # needed again at once, by the backward pass
    model.register_load_state_dict_pre_hook(_cut_model_state)


def blocks(model: nn.Module) -> list[nn.Module]:
    """What is put together at a time: the children of the model, and those of its children that are only containers.

    Left to the whole is a child that shares parameters with others.
    """
    places = Counter(
        id(parameter)
        for _, module in model.named_modules(remove_duplicate=False)
        for parameter in module.parameters(recurse=False)
    )
    return list(_blocks(model, places))


def _blocks(model: nn.Module, places: Mapping[int, int]) -> Iterator[nn.Module]:
    inner = [child for child in model.children() if any(True for _ in child.parameters())]
    for child in inner:
        if isinstance(child, CONTAINERS) or (len(inner) == 1 and any(True for _ in child.children())):
            yield from _blocks(child, places)
        elif all(places[id(parameter)] == 1 for parameter in child.parameters()):
            yield child


@contextmanager
def put_together_for_evaluation(model: nn.Module) -> Iterator[None]:
    """The whole model on each process, which may then pass forward as often as it likes, and not in step with others."""
    if not is_sharded(model):
        yield
        return
    cut: list[Any] = [module for module in model.modules() if is_sharded(module)]
    root, inner = cut[0], cut[1:]
    for module in inner:
        module.set_reshard_after_forward(False, recurse=False)
    root.set_reshard_after_backward(False)
    for module in cut:
        module.unshard()
    try:
        yield
    finally:
        for module in inner:
            module.set_reshard_after_forward(True, recurse=False)
        root.set_reshard_after_backward(True)
        for module in cut:
            module.reshard()


def put_together(tree: Any, keep: bool = True) -> Any:
    """Dicts and lists with whole tensors in place of parts; all processes take part, and those that keep none get None."""
    if isinstance(tree, Mapping):
        return {key: put_together(value, keep) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(put_together(value, keep) for value in tree)
    if not is_shard(tree):
        return tree
    together = whole(tree.detach())
    return together.cpu() if keep else None


def _cut_model_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, parameter in module.named_parameters():
        if prefix + name in state:
            state[prefix + name] = kept_like(state[prefix + name], parameter)


def _cut_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut = dict(state["state"])
    for number, parameter in zip(numbers, parameters, strict=False):  # torch itself tells of other numbers of parameters
        if number in cut:
            cut[number] = {
                name: kept_like(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value
                for name, value in cut[number].items()
            }
    return {**state, "state": cut}
