"""The 1cycle policy (Smith & Topin, 2018)."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from plugins.base import declare
from plugins.scheduler._schedule import Schedule


def has_momentum(optimizer: Optimizer) -> bool:
    """Whether every parameter group keeps a running average of gradients: momentum, or Adam's first β, above 0."""
    return all((group["betas"][0] if "betas" in group else group.get("momentum", 0)) > 0 for group in optimizer.param_groups)


class HeldOneCycle(OneCycleLR):
    """torch's scheduler, which past its last step holds the final rate instead of raising an error, and moves momentum beside Adam's β."""

    def __init__(self, optimizer: Optimizer, **settings: Any) -> None:
        self._beside = [group.get("momentum", 0) > 0 and "betas" in group for group in optimizer.param_groups]
        super().__init__(optimizer, **settings)

    def step(self, epoch: int | None = None) -> None:
        """Go on by one step."""
        if self.last_epoch < self.total_steps - 1:
            super().step(epoch)
            for group, beside in zip(self.optimizer.param_groups, self._beside, strict=True):
                if beside and self.cycle_momentum:
                    group["momentum"] = group["betas"][0]
        else:
            self.last_epoch += 1  # so that a longer training, resumed, knows where it is

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the position, in a cycle as long as the training is now."""
        own = ("total_steps", "_schedule_phases", "_beside")
        super().load_state_dict({name: value for name, value in state_dict.items() if name not in own})


class OneCycle(Schedule):
    """Raise the learning rate to its full value, then lower it to almost nothing; momentum moves the other way.

    From start_factor · ε to ε over the first `warmup` share of the steps, then to end_factor · ε, along half cosine
    waves; ε is the optimizer's learning rate. Momentum (Adam's first β; both, where an optimizer has both) goes from max_momentum
    to base_momentum and back; an optimizer without momentum stays without. A single step is the first of a cycle of two.

    Raises:
        RecipeError: `steps` left out and the training without an end.

    Source: Smith & Topin, "Super-Convergence", 2018.
    """

    warmup: float = declare.share("share of the steps in which the rate rises", default=0.3)
    start_factor: float = declare.number("first learning rate as a share of the optimizer's", default=0.04, above=0)
    end_factor: float = declare.number("final learning rate as a share of the optimizer's", default=4e-6, least=0)
    cycle_momentum: bool = declare.flag(
        "move momentum (Adam's first beta) too; an optimizer without momentum stays without", default=True
    )
    base_momentum: float = declare.number("momentum where the rate is largest", default=0.85, least=0, below=1)
    max_momentum: float = declare.number("momentum at both ends", default=0.95, least=0, below=1)
    steps: int | None = declare.count("optimizer steps of the cycle", default=None, null="all of the training")

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; each parameter group peaks at its own learning rate."""
        steps = max(2, self.span(total_steps))  # a cycle of one step would be its end
        # A rise that would end at the very first step makes torch divide 0 by 0; a hair less, and it starts at the peak.
        warmup = self.warmup - 1e-9 if self.warmup * steps == 1 else float(self.warmup)
        return HeldOneCycle(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=warmup,
            div_factor=1 / self.start_factor,
            final_div_factor=self.start_factor / self.end_factor if self.end_factor else math.inf,
            cycle_momentum=self.cycle_momentum and has_momentum(optimizer),
            base_momentum=self.base_momentum,
            max_momentum=self.max_momentum,
        )
