"""What learning rate schedules have in common: the rate of step k is the initial rate times a factor f(k)."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from plugins.base import RecipeError, declare
from plugins.declare import Declared

STEPS = declare.count("optimizer steps until it is reached", default=None, null="all of the training")
WARMUP = declare.count(
    "optimizer steps at the start in which the rate rises to its full value, along a line", default=0, least=0
)


def warmed(optimizer: Optimizer, factor: Callable[[int], float], warmup: int = 0) -> LRScheduler:
    """The scheduler of a factor f(k) on the initial rate, behind a warm-up.

    ε_k = ε_0 · (k + 1) / (warmup + 1) for k < warmup, then ε_0 · f(k − warmup).
    """
    return LambdaLR(optimizer, lambda step: (step + 1) / (warmup + 1) if step < warmup else factor(step - warmup))


class Schedule(Declared):
    """A schedule over `steps` optimizer steps, which a subclass declares, or all of the training when left out.

    Where a subclass declares `warmup` too, these are the first of them, and the schedule stretches over the rest.

    Called with the optimizer and the number of optimizer steps in the training, it makes the torch scheduler, which is
    stepped once after each optimizer step. A subclass defines `factor`, a pure function of the step.
    """

    warmup: float = 0  # steps, unless a subclass makes another use of it

    @property
    def steps(self) -> int | None:
        """The steps; None: all."""
        raise NotImplementedError

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
        warmup = int(self.warmup)
        if self.steps is not None and 0 < warmup >= self.steps:
            raise RecipeError(
                f"scheduler.steps={self.steps} counts the warm-up too, which has {warmup}: set scheduler.warmup below it, or larger steps"
            )
        steps = max(1, self.span(total_steps) - warmup)
        return warmed(optimizer, lambda step: self.factor(step, steps), warmup)
