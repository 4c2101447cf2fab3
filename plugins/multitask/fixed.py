"""Multi-task learning with weights of one's own (Caruana, 1997)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from plugins.base import Module, Refusal, Selection, declare
from plugins.multitask._weighted import Weighted


def _are_weights(value: object) -> bool:
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        return False
    return all(
        isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < math.inf for each in value.values()
    )


class FixedWeights(Weighted):
    """Learn several targets at once, each with a weight that is given.

    J = Σ_task w_task J_task, on a trunk that all tasks share and one linear head for each: the trunk gets the weighted sum of the gradients,
    each head that of its own task, times its weight. Penalties are added beside, with the weight 1, so they count for less where all weights are
    larger. One task alone equals the plain run bit for bit, whatever its weight: there is nothing to weigh it against.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.
        Refusal: a weight for what is no task, or 0 for all of them.

    Source: Caruana, "Multitask Learning", Machine Learning 1997; lecture A.
    """

    on_shards = True

    weights: Mapping[str, float] | None = declare.value(
        "factor of the loss of each task by its name, such as {digit: 1, speaker: 0.3}; of a task that is not named 1",
        "a mapping of tasks to finite numbers ≥ 0, such as {digit: 1, speaker: 0.3}",
        _are_weights,
        default=None,
        null="1 for each, as equal",
    )

    def check(self, selection: Selection) -> None:
        """Refuse weights of other tasks, and none at all."""
        super().check(selection)
        names = [task.name for task in selection.setting.tasks]
        if len(names) == 1 or self.weights is None:
            return
        if unknown := [name for name in self.weights if name not in names]:
            raise Refusal(
                f"multitask.weights names {', '.join(unknown)}, and the targets are {', '.join(names)}: type "
                f"multitask.weights={{{names[0]}: NUMBER}}"
            )
        if not any(self.weights.get(name, 1.0) for name in names):
            raise Refusal(f"multitask.weights is 0 for all of {', '.join(names)}: give one of them a weight above 0")

    def factors(self, module: Module) -> Tensor | None:
        """Those that are given."""
        if self.weights is None:
            return None
        given = [float(self.weights.get(task.name, 1.0)) for task in self.setting.tasks]
        return torch.tensor(given, device=module.device)
