"""What techniques for several targets share: a head for each task on a shared trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from plugins.base import Module, Plugin, RecipeError, Setting, Stage, Task, derive_seed
from plugins.depth import SideBySide
from plugins.sites import trace


class Heads(SideBySide):
    """One linear layer for each task on the same features; the first task keeps the given layer."""

    def __init__(self, layer: nn.Linear, tasks: Sequence[Task], seed: int) -> None:
        super().__init__()
        self.names = [task.name for task in tasks]
        self.heads = nn.ModuleList([layer, *(further_head(layer, task, seed) for task in tasks[1:])])

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """The outputs (samples, outputs) of each task."""
        return {name: head(features) for name, head in zip(self.names, self.heads, strict=True)}


def further_head(layer: nn.Linear, task: Task, seed: int) -> nn.Linear:
    """A layer beside `layer` with torch's own initial weights, U(±1/√inputs), from a generator of its own."""
    weight = layer.weight
    head: nn.Linear = nn.utils.skip_init(
        nn.Linear, layer.in_features, task.outputs, layer.bias is not None, device=weight.device, dtype=weight.dtype
    )
    generator = torch.Generator(weight.device).manual_seed(derive_seed(seed, "head", task.name))
    bound = layer.in_features**-0.5
    for parameter in head.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return head


def split_head(model: nn.Module, setting: Setting) -> nn.Module:
    """Split the layer that makes the model's outputs into one head for each task; a model with one task stays as it is.

    Raises RecipeError if the last operation is not a linear layer with as many outputs as the first task has.
    """
    if len(setting.tasks) == 1:
        return model
    calls, result = trace(model, setting.shape)
    if isinstance(result, Mapping):
        if missing := {task.name for task in setting.tasks} - set(result):
            raise RecipeError(f"{type(model).__name__} has no outputs for the tasks {', '.join(sorted(missing))}")
        return model
    if shaped := [task.name for task in setting.tasks if task.shape]:
        raise RecipeError(
            f"no head is made for targets with a class for each place ({', '.join(shaped)}): give a model that returns a dict with one entry a task"
        )
    last = next((call for call in calls if call.output is result and isinstance(call.module, nn.Linear)), None)
    if last is None:
        raise RecipeError(
            f"{type(model).__name__} does not end with a linear layer that could be split into heads: choose a model that "
            f"does, such as mlp or cnn, or give one that returns a dict with one entry a task"
        )
    layer: nn.Linear = last.module  # type: ignore[assignment]
    if layer.out_features != setting.tasks[0].outputs:
        raise RecipeError(
            f"the model has {layer.out_features} outputs, expected those of the first task: {setting.tasks[0].outputs}"
        )
    heads = Heads(layer, setting.tasks, setting.seed)
    if last.name == "":
        return heads
    model.set_submodule(last.name, heads)
    return model


class MultiTask(Plugin):
    """Learn several targets with a shared trunk and a head for each. Logged: `TASK_loss`."""

    stage = Stage.HEADS
    on_named_inputs = True
    on_class_maps = True

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Split the output layer into one head for each task."""
        return split_head(model, self.setting)

    def combine(self, losses: Mapping[str, Tensor], module: Module) -> Tensor:
        """The sum of the losses, each of which is logged."""
        for task, loss in losses.items():
            self.record(module, f"{task}_loss" if task else "loss", loss)
        first, *others = losses.values()
        return sum(others, first)

    def record_weights(self, module: Module, weights: Tensor) -> None:
        """Log what each task counts, `weight_TASK`."""
        for task, weight in zip(self.setting.tasks, weights, strict=True):
            self.record(module, f"weight_{task.name}", weight)
