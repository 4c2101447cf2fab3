"""Noticing that a training diverges, long before its loss is NaN."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.optim import Optimizer

from plugins.base import Module, Selection, declare
from plugins.guard._rollback import Rollback, over_ranks

KEPT = 0.9  # share of the running mean that is kept in each step
SMALL = 0.01  # of the first loss: what is below counts as that, so that a loss of nearly 0 may rise many times


class Usual(NamedTuple):
    """What the loss usually is.

    Attributes:
        steps: in which it was looked at.
        mean: the running mean of it.
        best: the smallest running mean.
        least: below which no loss counts as better.
    """

    steps: int = 0
    mean: float = 0.0
    best: float = math.inf
    least: float = 0.0

    def after(self, loss: float) -> Usual:
        """J̄ ← J̄ + max(1 − 0.9, 1/t) · (J − J̄), the mean of the first ten steps and a running mean of the later ones."""
        steps = self.steps + 1
        mean = self.mean + max(1 - KEPT, 1 / steps) * (loss - self.mean)
        least = self.least if self.steps else SMALL * abs(loss)
        return Usual(steps, mean, min(self.best, max(mean, least)), least)

    def is_too_much(self, loss: float, factor: float) -> bool:
        """Whether a loss is above the best running mean times a factor, or NaN."""
        return self.steps > 0 and not loss <= factor * self.best


class Divergence(Rollback):
    """Give up a training whose loss stays far above its best, or go back to a good state with a lower learning rate.

    A step is bad where J > factor · min J̄, with J̄ the running mean of what is minimized, over about ten good steps; below a hundredth of the
    first loss min J̄ counts as that. After `patience` bad steps in a row, or at once where a loss is NaN or infinite, the model and the optimizer go
    back to the last good state, and the learning rate, now and in the rest of the schedule, is multiplied by lr_factor. A state is good once
    a step from it was not bad, so it is about twice every_n_steps old at most. After max_rollbacks times, or at once where that is 0, the run ends
    as diverged, with the best model so far in best.ckpt. Beside guard=nan_rollback, which undoes a step whose loss is none at once, that is just
    a bad step. Reads one number from the device in each step.

    Raises:
        Refusal: an average of weights, which would keep those of bad steps.
        Diverged: in training, after max_rollbacks rollbacks.

    Source: Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 2023, section 5.1 (loss spikes: go back to a checkpoint before).
    """

    refuses = {
        name: "it acts after several bad steps, which the average would keep: take +guard=nan_rollback, or leave one of the two out"
        for name in ("averaging", "wrapper/lookahead")
    }

    factor: float = declare.number("times the best running mean of the loss that are too much", default=3.0, above=1)
    patience: int = declare.count("such steps in a row after which the training has diverged", default=20)

    def __post_init__(self) -> None:
        """Nothing has gone wrong yet."""
        super().__post_init__()
        self.usual, self.bad, self.at_once = Usual(), 0, True

    def check(self, selection: Selection) -> None:
        """Leave steps without a loss to the technique that undoes them, where it is there."""
        self.at_once = not selection.has("guard/nan_rollback")

    def begin(self) -> None:
        """Begin anew."""
        super().begin()
        self.usual, self.bad = Usual(), 0

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Look at the loss; all ranks see the mean of theirs."""
        loss = self.loss_of(module)
        finite = math.isfinite(loss)
        if self.usual.is_too_much(loss, self.factor) or not finite:
            self.bad = self.bad + 1
            self.doubt()
            if self.bad >= self.patience or (self.at_once and not finite):
                self.bad = 0
                limit = f"{self.factor:g} times its best mean ({self.usual.best:.4g})"
                above = f"the loss was above {limit} for {self.patience} steps"
                self.roll_back(module, optimizer, above if finite or not self.at_once else f"the loss was {loss:g}")
        else:
            self.usual, self.bad = self.usual.after(loss), 0
            self.confirm(module, optimizer)
        self.record(module, "count", float(self.count))

    @staticmethod
    def loss_of(module: Module) -> float:
        """What the step minimized, the mean over all ranks."""
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        return float(over_ranks(module.last_objective.detach(), dist.ReduceOp.SUM)) / world

    @property
    def advice(self) -> str:
        """What else to try, where it gives up."""
        return f"or a larger guard.divergence.factor (it is {self.factor:g}) where the loss is just noisy"

    def state_dict(self) -> dict[str, Any]:
        """What the loss usually is, and the steps that were bad, beside the good state."""
        return {**super().state_dict(), "usual": list(self.usual), "bad": self.bad}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self.usual, self.bad = Usual(*state_dict["usual"]), state_dict["bad"]
