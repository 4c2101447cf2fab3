"""What learning rate schedules have in common: the rate of step k is the initial rate times a factor f(k)."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from plugins.base import RecipeError, expect_count


class Schedule:
    """A schedule over `steps` optimizer steps, or all of the training when left out.

    Called with the optimizer and the number of optimizer steps in the training, it makes the torch scheduler, which is
    stepped once after each optimizer step. A subclass defines `factor`, a pure function of the step.
    """

    def __init__(self, steps: int | None = None) -> None:
        if steps is not None:
            expect_count("steps", steps)
        self.steps = steps

    def span(self, total_steps: int) -> int:
        """The steps that the schedule stretches over."""
        if self.steps is None and total_steps < 1:
            raise RecipeError("this scheduler must know where training ends: set scheduler.steps, max_epochs or max_steps")
        return total_steps if self.steps is None else self.steps

    def factor(self, step: int, steps: int) -> float:
        """The factor on the initial learning rate after `step` optimizer steps."""
        raise NotImplementedError

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; all parameter groups follow the same factor."""
        steps = self.span(total_steps)
        return LambdaLR(optimizer, lambda step: self.factor(step, steps))
