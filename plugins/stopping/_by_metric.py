"""Stopping by a metric of the validation: which it is, and which of its values is best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L

from plugins.base import MODES, Plugin, RecipeError, Selection, Stage, declare, declared_directions, larger_is_better


class ByMetric(Plugin):
    """What goes by a metric of the validation; `names` is the parameter that names it."""

    stage = Stage.STOPPING
    on_shards = True
    names: str

    mode: str | None = declare.choice(
        *MODES,
        default=None,
        help="which value of it is best, max | min",
        null="as declared by what measures it, or known from its name",
    )

    def __post_init__(self) -> None:
        """Nothing has been evaluated yet."""
        self.monitor_mode = self.mode
        self.declared: dict[str, str] = {}

    @property
    def followed(self) -> str:
        """The name of the metric."""
        return str(getattr(self, self.names))

    @property
    def larger(self) -> bool:
        """Whether a larger value of it is better."""
        larger = self.monitor_mode == "max" if self.monitor_mode else larger_is_better(self.followed, self.declared)
        if larger is None:
            raise RecipeError(
                f"whether a larger or a smaller {self.followed} is better is not known: type stopping.mode=max or min"
            )
        return larger

    @property
    def sign(self) -> float:
        """What makes an error of the metric."""
        return -1.0 if self.larger else 1.0

    @property
    def by(self) -> list[str | float]:
        """What chooses, for the checkpoint."""
        return [self.followed, self.sign]

    def expect_same(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse a checkpoint with the best value of another metric, which no value of this one may ever beat."""
        by = state_dict.get("by", self.by)  # older checkpoints do not tell
        if list(by) != self.by:
            raise RecipeError(
                f"the best so far is that of stopping.{self.names}={by[0]}: leave {self.names} and mode, or start a new run"
            )

    def check(self, selection: Selection) -> None:
        """Learn what techniques declare of their metrics."""
        self.declared = declared_directions(selection.plugins, selection.setting.tasks)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuse a training without what is followed."""
        if not trainer.enable_validation:
            raise RecipeError(f"{self.state_key} needs validation data: give the training some, or leave stopping out")
        _ = self.larger  # known before the first batch

    def value(self, metrics: Mapping[str, float]) -> float:
        """What the validation has measured."""
        if self.followed not in metrics:
            there = ", ".join(sorted(name for name in metrics if name.startswith("val/")))
            raise RecipeError(f"stopping.{self.names}={self.followed} is no metric of this run; there are: {there}")
        return metrics[self.followed]


def metric_name(default: str) -> Any:
    """The parameter that names a metric."""
    return declare.value(
        "validation metric",
        "the name of a metric such as val/loss",
        lambda value: isinstance(value, str) and value != "",
        default=default,
    )
