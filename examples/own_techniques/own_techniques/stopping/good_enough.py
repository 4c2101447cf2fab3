"""Stop at a goal."""

from __future__ import annotations

from collections.abc import Mapping

from plugins.base import Module, Plugin, RecipeError, Stage


class GoodEnough(Plugin):
    """End the training once the validation loss is as low as asked for.

    Args:
        loss: val/loss at which training ends; by then it has learned enough.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 8.1.3 (a surrogate loss is minimized until a criterion holds).
    """

    stage = Stage.STOPPING

    def __init__(self, loss: float = 0.1) -> None:
        self.loss = loss

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at the goal after each validation."""
        if "val/loss" not in metrics:
            raise RecipeError("stopping/good_enough needs validation data: give the training some, or leave stopping out")
        if metrics["val/loss"] <= self.loss:
            module.trainer.should_stop = True
        return {}
