"""Early stopping (Goodfellow, Bengio & Courville, Algorithm 7.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning as L
from torch import Tensor

from plugins.base import Module, declare
from plugins.stopping._by_metric import ByMetric, metric_name


class Search(NamedTuple):
    """The variables of Algorithm 7.1: v, the smallest validation error so far; i*, the steps that led there; and j."""

    best_error: float = math.inf
    best_step: int = 0
    waited: int = 0  # j, the evaluations since then

    def observe(self, error: float, step: int, min_delta: float = 0.0) -> Search:
        """After an evaluation: v, i* ← error, step and j ← 0 if the error is below v − min_delta, else j ← j + 1."""
        if error < self.best_error - min_delta:  # NaN is below nothing
            return Search(error, step)
        return self._replace(waited=self.waited + 1)


class EarlyStopping(ByMetric):
    """Stop when the validation metric has not improved for `patience` evaluations, and go back to the best weights.

    Algorithm 7.1: every n steps the validation error v' is compared with the smallest one, v. If v' < v − min_delta, then
    j ← 0, θ* ← θ, i* ← i, v ← v'; else j ← j + 1. Once j = patience, training ends with θ* in the model. The same holds
    for a training that ends for another reason. θ* is what was evaluated: the average, where weights are averaged.

    Raises:
        RecipeError: no validation data; no metric of that name, or none of a known direction.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 7.8; lectures A, C, D.
    """

    names = "monitor"

    monitor: str = metric_name("val/loss")
    patience: int = declare.count("evaluations in a row without improvement that end training", default=5)
    every_n_steps: int | None = declare.count("optimizer steps between evaluations", default=None, null="every_n_epochs counts")
    every_n_epochs: int = declare.count("epochs between evaluations", default=1, note="1: every validation is one")
    min_delta: float = declare.number("improvements no larger than this count as none", default=0.0, least=0)

    def __post_init__(self) -> None:
        """Nothing has been evaluated yet."""
        super().__post_init__()
        self.search = Search()
        self.best_weights: dict[str, Tensor] = {}

    @property
    def best_step(self) -> int:
        """i*: the optimizer steps after which the best weights were reached; 0 before the first evaluation."""
        return self.search.best_step

    @property
    def recovers(self) -> bool:
        """Whether there is a θ* to go back to."""
        return bool(self.best_weights)

    def trainer_arguments(self) -> dict[str, Any]:
        """The interval between evaluations."""
        if self.every_n_steps is not None:
            return {"val_check_interval": self.every_n_steps, "check_val_every_n_epoch": None}
        # With 1, Lightning's own interval, whatever else sets the validation interval is respected.
        return {"check_val_every_n_epoch": self.every_n_epochs} if self.every_n_epochs > 1 else {}

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin anew, or go on with what a checkpoint held."""
        super().on_train_start(trainer, pl_module)
        if pl_module.steps_done == 0:
            self.search, self.best_weights = Search(), {}
        trainer.should_stop = trainer.should_stop or self.search.waited >= self.patience

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Go through the body of the algorithm's loop."""
        self.search = self.search.observe(self.sign * self.value(metrics), module.steps_done, self.min_delta)
        if self.search.waited == 0:
            self.best_weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
        if self.search.waited >= self.patience:
            module.trainer.should_stop = True
        best = {"best_step": float(self.search.best_step), "best_value": self.sign * self.search.best_error}
        return {f"{self.option}/{name}": value for name, value in {**best, "waited": float(self.search.waited)}.items()}

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Put θ* into the model."""
        if self.best_weights:
            pl_module.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        """The algorithm's variables, and what chooses."""
        return {"search": list(self.search), "best_weights": dict(self.best_weights), "by": self.by}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; the best value of another metric is refused."""
        self.expect_same(state_dict)
        self.search = Search(*state_dict["search"])
        self.best_weights = dict(state_dict["best_weights"])
