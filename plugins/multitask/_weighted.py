"""What techniques that weigh the losses of several tasks share: how well the gradients of the tasks agree is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugins.base import Batch, Module, Selection
from plugins.compiled import is_compiled, keep_compiled_graphs
from plugins.multitask._heads import MultiTask
from plugins.shards import is_shard

EVERY_N_STEPS = 50


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


class Weighted(MultiTask):
    """Learn several targets by one scalar made of their losses; a subclass weighs them.

    Logged: `TASK_loss`, `weight_TASK` where a subclass defines `factors`, and every 50 steps `gradient_cosine`, the cosine between the
    gradients of two tasks on the parameters they share (its mean over all pairs), unless each process keeps only parts of them.
    """

    def check(self, selection: Selection) -> None:
        """Compiled graphs must stay for a second gradient."""
        if selection.compiled and len(selection.setting.tasks) > 1:
            keep_compiled_graphs()

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Split the output layer into one head for each task; of a model that comes compiled graphs must stay too."""
        if is_compiled(model) and len(self.setting.tasks) > 1:
            keep_compiled_graphs()
        return super().transform_model(model)

    def factors(self, module: Module) -> Tensor | None:
        """The factor of each task's loss, (tasks,); None: 1."""
        return None

    def combine(self, losses: Mapping[str, Tensor], module: Module) -> Tensor:
        """Σ_task w_task J_task; one loss alone stays as it is."""
        total = super().combine(losses, module)
        if len(losses) == 1 or (weights := self.factors(module)) is None:
            return total
        self.record_weights(module, weights)
        first, *others = (weight * losses[task.name] for task, weight in zip(self.setting.tasks, weights, strict=True))
        return sum(others, first)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Nothing is added; the losses of the tasks are looked at from time to time."""
        if len(batch.targets) == 1 or module.steps_done % EVERY_N_STEPS:
            return
        parameters = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
        if any(map(is_shard, parameters)):
            return
        weight = {task: counted for task in batch.targets if (counted := batch.counted(task)) is not None}
        cosine = gradient_cosine(module.losses(outputs, batch.targets, weight), parameters)
        if cosine is not None:
            self.record(module, "gradient_cosine", cosine, at_once=True)
