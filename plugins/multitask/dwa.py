"""Dynamic weight averaging (Liu et al., 2019)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Module, RecipeError, Setting, declare
from plugins.multitask._weighted import Weighted

if TYPE_CHECKING:
    from jaxtyping import Float


def dwa_weights(last: Float[Tensor, " tasks"], before: Float[Tensor, " tasks"], temperature: float) -> Float[Tensor, " tasks"]:
    """w = m · softmax(r / T) of m tasks, with r = J(epoch before) / J(the one before that); 1 where that was 0, or one of them is not finite."""
    ratio = last / before
    ratio = torch.where(ratio.isfinite() & before.isfinite(), ratio, torch.ones_like(ratio))
    return len(last) * (ratio / temperature).softmax(0)


class DynamicWeightAverage(Weighted):
    """Learn several targets at once, those most whose losses have fallen least from one epoch to the next.

    J = Σ_task w_task J_task with w = m · softmax(r / T) of m tasks, r_task = J_task(t−1) / J_task(t−2), of the means of the losses as they are minimized over an
    epoch, all processes and parts of a step included. In the first two epochs all weights are 1; their sum is always m. The scale of a loss does not matter
    to its weight, but to what it counts. The trunk gets the weighted sum of the gradients, each head that of its own task, times its weight; penalties are added
    beside, with the weight 1. A larger temperature makes weights more alike. One task alone equals the plain run bit for bit.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs; training data without an end.

    Source: Liu, Johns & Davison, "End-to-end multi-task learning with attention", CVPR 2019, equation 7.
    """

    on_shards = True

    temperature: float = declare.number(
        "T, by which ratios are divided", default=2.0, above=0, note="the larger, the more alike the weights"
    )

    def prepare(self, setting: Setting) -> None:
        """Begin with equal weights."""
        super().prepare(setting)
        self._sum, self._steps = torch.zeros(len(setting.tasks)), 0  # of the epoch under way
        self._epochs: list[Tensor] = []  # means of the last two

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuse data of which no epoch ends."""
        if len(self.setting.tasks) > 1 and math.isinf(trainer.num_training_batches):
            raise RecipeError(f"{self.state_key} counts epochs, and the training data has no end: give a loader with a length")

    def factors(self, module: Module) -> Tensor:
        """Those of this epoch."""
        if len(self._epochs) < 2:
            return torch.ones(len(self.setting.tasks), device=module.device)
        before, last = (losses.to(module.device) for losses in self._epochs)
        return dwa_weights(last, before, self.temperature)

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Add the losses of this step to those of its epoch."""
        if len(self.setting.tasks) == 1:
            return
        losses = module.step_losses()
        self._sum, self._steps = self._sum.to(losses) + losses, self._steps + 1
        if module.steps_done % module.trainer.num_training_batches == 0:
            self._epochs = [*self._epochs, self._sum / self._steps][-2:]
            self._sum, self._steps = torch.zeros_like(losses), 0

    def state_dict(self) -> dict[str, Any]:
        """The means of the last epochs, and the sums of the one under way."""
        return {"sum": self._sum, "steps": self._steps, "epochs": self._epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._sum, self._steps = state_dict["sum"].clone(), int(state_dict["steps"])
        self._epochs = [losses.clone() for losses in state_dict["epochs"]]
