"""What techniques for several targets share: a head for each task on a shared trunk, and how well their gradients agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugins.base import Batch, Module, Plugin, RecipeError, Selection, Setting, Stage, Task, derive_seed
from plugins.shards import is_shard
from plugins.sites import trace

EVERY_N_STEPS = 50


class Heads(nn.Module):
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


def gradient_cosine(losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> Tensor | None:
    """The cosine between the gradients of two tasks' losses on the parameters they share; its mean over all pairs.

    −1: the tasks pull in opposite directions, 1: in the same. None where fewer than two tasks share a parameter. Leaves
    the graph and the gradients of parameters alone.
    """
    gradients = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses.values()]
    shared = [column for column in zip(*gradients, strict=True) if all(gradient is not None for gradient in column)]
    if len(gradients) < 2 or not shared:
        return None
    flat = [torch.cat([gradient.flatten().float() for gradient in of_task]) for of_task in zip(*shared, strict=True)]
    return torch.stack([F.cosine_similarity(one, other, dim=0) for one, other in combinations(flat, 2)]).mean()


class MultiTask(Plugin):
    """Learn several targets with a shared trunk and a head for each; a subclass weighs the losses.

    Logged: `TASK_loss`, and every 50 steps `gradient_cosine`, the cosine between the gradients of two tasks on the
    parameters they share (its mean over all pairs), unless each process keeps only parts of them.
    """

    stage = Stage.HEADS

    def check(self, selection: Selection) -> None:
        """Compiled graphs must stay for a second gradient."""
        if selection.compiled and len(selection.setting.tasks) > 1:
            import torch._functorch.config as compiler

            compiler.donated_buffer = False  # else the first gradient would overwrite what the second one needs

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Split the output layer into one head for each task."""
        return split_head(model, self.setting)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Nothing is added; the losses of the tasks are looked at from time to time."""
        if len(batch.targets) == 1 or module.steps_done % EVERY_N_STEPS:
            return
        parameters = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
        if any(map(is_shard, parameters)):
            return
        cosine = gradient_cosine(module.losses(outputs, batch.targets, batch.weight), parameters)
        if cosine is not None:
            self.record(module, "gradient_cosine", cosine, at_once=True)

    def record_losses(self, losses: Mapping[str, Tensor], module: Module) -> None:
        """Have the loss of each task logged."""
        for task, loss in losses.items():
            self.record(module, f"{task}_loss" if task else "loss", loss)
