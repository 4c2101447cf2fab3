"""Giving up what is not good enough in time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L

from plugins.base import GivenUp, Module, declare
from plugins.stopping._by_metric import ByMetric, metric_name


def missed(reach: Mapping[int, float], step: int, best: float, larger: bool) -> tuple[int, float] | None:
    """The first milestone up to a step that the best value so far has not reached, as its step and value; None: all were reached."""
    for at, value in sorted(reach.items()):
        if at <= step and not (best >= value if larger else best <= value):
            return at, value
    return None


def are_milestones(value: Any) -> bool:
    """Whether it has finite numbers by step."""
    return isinstance(value, Mapping) and all(
        type(step) is int and step > 0 and type(number) in (int, float) and math.isfinite(number)
        for step, number in value.items()
    )


class Milestones(ByMetric):
    """Give a training up whose validation metric has not reached a value by a step.

    Of milestones {n: x} each is looked at in the first validation at step n or later, that behind the last step of a run among them: where the best
    value up to then is worse than x the run ends as given up, with the status `pruned`. In a sweep it is told, and compared with nothing.

    Raises:
        RecipeError: no validation data; no metric of that name, or none of a known direction.
    """

    names = "metric"

    metric: str = metric_name("val/loss")
    reach: Mapping[int, float] | None = declare.value(
        "values by step, such as {500: 0.6}",
        "values by step, such as {500: 0.6}",
        are_milestones,
        default=None,
        off=None,
        null="none",
    )

    def __post_init__(self) -> None:
        """Nothing has been evaluated yet."""
        super().__post_init__()
        self.best: float | None = None
        self._behind = False  # whether a validation behind the training is still to come

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin anew, or go on with what a checkpoint held."""
        super().on_train_start(trainer, pl_module)
        self._behind = True
        if pl_module.steps_done == 0:
            self.best = None

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at the milestones that are behind."""
        value = self.value(metrics)
        if self.best is None or not math.isfinite(self.best) or (value > self.best if self.larger else value < self.best):
            self.best = value
        if found := missed(self.reach or {}, module.steps_done, self.best, self.larger):
            raise GivenUp(
                module.steps_done,
                f"{self.metric} had not reached {found[1]:g} by step {found[0]}, the best was {self.best:.4g}",
            )
        return {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look once more at the validation behind the training: later ones may be of other samples."""
        if trainer.state.fn != "fit" and self._behind:
            self._behind = False
            if self.followed in pl_module.metrics:  # a technique may measure it in a training alone
                self.after_validation(pl_module, pl_module.metrics)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and what chooses."""
        return {"best": self.best, "by": self.by}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; the best value of another metric is refused."""
        self.expect_same(state_dict)
        self.best = state_dict["best"]
