"""Multi-task learning weighted by learned uncertainty (Kendall et al., 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plugins.base import ALWAYS, Module, Named, Refusal, Selection, Task
from plugins.depth import LOG_VARIANCES
from plugins.multitask._weighted import Weighted
from plugins.shards import kept_like, part

if TYPE_CHECKING:
    from jaxtyping import Float


def uncertainty_weights(log_variances: Float[Tensor, " tasks"], tasks: Sequence[Task]) -> Float[Tensor, " tasks"]:
    """1/σ² of each task, of a regression 1/(2σ²), with σ² = e^s."""
    half = torch.tensor([0.5 if task.kind == "regression" else 1.0 for task in tasks]).to(log_variances)
    return half * (-log_variances).exp()


class UncertaintyWeights(Weighted):
    """Learn several targets at once, weighted by how uncertain each is, which is learned too.

    J = Σ_task w_task J_task + log σ_task, with w = 1/σ² of classes and labels, a softmax of temperature σ², and 1/(2σ²) of a regression, a Gaussian of variance σ²
    whose loss is the squared error. Learned is s = log σ², from 0 on, by the optimizer of the run, with its learning rate, without weight
    decay; s is a parameter of the model, `task_log_variances`, in each checkpoint, and belongs to the head. At its best σ² = J_task of a regression, 2 J_task of classes, so w J_task is the same for
    all: the scale of a loss does not matter in the end. In a step in which a task has no loss, as where none of its labels is known, its s has no gradient. The trunk gets the weighted sum of the gradients, each head that of its own task, times its
    weight; penalties are added beside, with the weight 1, and count for more while weights are small. One task alone has no s, and equals the plain run bit for bit.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.
        Refusal: `when` on several processes.

    Source: Kendall, Gal & Cipolla, "Multi-task learning using uncertainty to weigh losses for scene geometry and semantics", CVPR 2018,
    equations 7 to 10.
    """

    on_shards = True

    def check(self, selection: Selection) -> None:
        """Refuse parameters that some steps have no use for, for which processes would wait."""
        super().check(selection)
        if self.when != ALWAYS and selection.devices > 1 and len(selection.setting.tasks) > 1:
            raise Refusal(
                f"{self.state_key} learns in each step, and processes wait for what one leaves out: leave `when` out, or train on one"
            )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Split the output layer, and add a parameter for the tasks to the model, which has it together under trainer=fsdp."""
        model = super().transform_model(model)
        if len(self.setting.tasks) > 1:
            like = next(weight for weight in model.parameters() if weight.is_floating_point())
            model.register_parameter(LOG_VARIANCES, nn.Parameter(like.new_zeros(len(self.setting.tasks))))
        return model

    @classmethod
    def group_parameters(cls, named: Sequence[Named]) -> Sequence[Mapping[str, Any]]:
        """No weight decay of log variances: it would pull σ² to 1."""
        return [{"weight_decay": 0.0} if each.name.rpartition(".")[2] == LOG_VARIANCES else {} for each in named]

    def factors(self, module: Module) -> Tensor:
        """By the log variances as they are."""
        return uncertainty_weights(self._log_variances(module), self.setting.tasks)

    def combine(self, losses: Mapping[str, Tensor], module: Module) -> Tensor:
        """The weighted losses, and log σ of each."""
        total = super().combine(losses, module)
        return total if len(losses) == 1 else total + 0.5 * self._log_variances(module).sum()

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """No gradient of s where nothing is known of how large its loss is: 0.5 of log σ alone would only make its weight larger."""
        if len(self.setting.tasks) == 1:
            return
        seen = module.step_losses() != 0  # asked for by all processes
        log_variances = self._log_variances(module)
        if log_variances.grad is not None:
            part(log_variances.grad).mul_(part(kept_like(seen.to(log_variances.grad.dtype), log_variances)))

    def _log_variances(self, module: Module) -> Tensor:
        found = next(part for part in module.model.modules() if hasattr(part, LOG_VARIANCES))  # whatever stands around it
        log_variances: Tensor = getattr(found, LOG_VARIANCES)
        return log_variances
