"""The learning rate at which the loss falls fastest while the rate rises (the range test of Smith, 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from plugins.errors import Diverged, RecipeError
from recipes.data.base import Data
from recipes.run.tuning.short import short_training

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0  # rates
NEIGHBOURS = 3  # points on either side over which a loss is averaged
TOO_LARGE = 4.0  # times the first loss, at which the test ends


def rising(low: float, high: float, steps: int, configured: float) -> Callable[[Optimizer, int], LRScheduler]:
    """A schedule that takes the rate from `low` to `high` in equal factors, low · (high/low)^(i/(steps − 1)); groups keep their ratios.

    Args:
        low, high: rates at the first and the last step, > 0.
        steps: ≥ 2.
        configured: the rate that the optimizer is made with, > 0.
    """
    factor = high / low

    def make(optimizer: Optimizer, total: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: low / configured * factor ** (min(step, steps - 1) / (steps - 1)))

    return make


def smooth(values: Sequence[float], neighbours: int = NEIGHBOURS) -> list[float]:
    """Each value averaged with those beside it, which shifts nothing."""
    windows = [values[max(0, place - neighbours) : place + neighbours + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def steepest(losses: Sequence[float]) -> int | None:
    """The place at which smoothed losses over the logarithm of the rate fall fastest, before they are smallest; None: they do not fall."""
    lowest = min(range(len(losses)), key=losses.__getitem__, default=0)
    places = range(1, min(lowest, len(losses) - 2) + 1)
    place = min(places, key=lambda place: losses[place + 1] - losses[place - 1], default=None)
    return place if place is not None and losses[place + 1] < losses[place - 1] else None


class Watch(L.Callback):
    """Note the loss of each step, until it is too large."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """The loss that was minimized, over all processes."""
        loss = float(trainer.strategy.reduce(pl_module.last_objective.detach().clone(), reduce_op="mean"))
        if not math.isfinite(loss) or (self.losses and loss > TOO_LARGE * abs(self.losses[0])):
            trainer.should_stop = True
        else:
            self.losses.append(loss)


def find_rate(config: Mapping[str, Any], folder: Path, data: Data, world: int) -> tuple[float, list[tuple[float, float]]]:
    """A learning rate for what a config describes, all of its techniques included, and the smoothed loss by rate.

    Args:
        config: of the run; its schedule is left out.
        folder: of the run; nothing is written there.
        data: set up.
        world: processes that train together.

    Raises:
        RecipeError: the optimizer has no rate, or the loss falls at none.
    """
    configured = config["optimizer"].get("lr")
    if not isinstance(configured, float | int) or configured <= 0:
        raise RecipeError(f"tune=lr: the optimizer has no rate to start from: type optimizer.lr=0.001, got {configured}")
    watch = Watch()
    with suppress(Diverged):  # as it is to in the end
        short_training(config, folder, data, watch, STEPS, world, schedule=rising(LOWEST, HIGHEST, STEPS, configured))
    losses = smooth(watch.losses)
    place = steepest(losses)
    rates = [LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(len(losses))]
    if place is None:
        raise RecipeError(f"tune=lr: the loss falls at no rate between {LOWEST:g} and {HIGHEST:g}: type optimizer.lr=RATE")
    return rounded(rates[place]), list(zip(rates, losses, strict=True))


def rounded(rate: float) -> float:
    """A rate with the two digits that it is known to."""
    return float(f"{rate:.2g}")


def nearest(rates: Sequence[float], rate: float) -> int:
    """The place of the rate, among these, that is nearest to one by its logarithm."""
    return min(range(len(rates)), key=lambda place: abs(math.log(rates[place] / rate)))
