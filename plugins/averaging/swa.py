"""Stochastic weight averaging (Izmailov et al., 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.averaging._average import Averaging
from plugins.base import Batch, Module, RecipeError, declare
from plugins.norm_statistics import measure_norms, measured_norms

if TYPE_CHECKING:
    from jaxtyping import Float


def take_in(average: list[Float[Tensor, " ..."]], weights: list[Float[Tensor, " ..."]], count: int) -> None:
    """average ← average + (weights − average) / (count + 1), in place: the mean of count + 1 weights."""
    torch._foreach_lerp_(average, weights, 1 / (count + 1))


class SWA(Averaging):
    """Evaluate and keep the mean of the weights after each step of the last part of the training.

    θ̄ = 1/n · Σ θ_t over the n steps t > start · total, with a constant learning rate if one is given, so that the weights travel
    around the optimum instead of settling. The statistics of batch norm belong to the average: they are measured anew on the
    clean training split, before each evaluation in training and at its end, which costs a forward pass over it. Until
    averaging begins the weights themselves are evaluated.

    Raises:
        RecipeError: a training without an end of its own; `lr` with an optimizer that has no learning rate, or 0; a checkpoint of another model.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; torch's swa_utils.
    """

    calibrated_on = "train"
    to_begin = "take a smaller averaging.start"
    start: float = declare.share("share of the training after which averaging begins", default=0.75, off=1.0)
    lr: float | None = declare.number(
        "learning rate from then on", default=None, above=0, null="that of the schedule",
        more="Of groups with rates of their own it is that of the first, and the others keep their proportion to it.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Nothing is averaged, no rate is set."""
        super().__post_init__()
        self.lowered = 1.0  # by a guard, since `lr` is in force
        self._kept: list[tuple[Any, Any]] = []  # of each group in a step with `lr`: the schedule's rate, and what was set
        self._norms: list[Any] = []  # the layers that have running statistics
        self._frozen: set[int] | None = None  # those of them that are not trained, by id

    def move(self, average: list[Tensor], weights: list[Tensor]) -> None:
        """See :func:`take_in`."""
        take_in(average, weights, self.count)

    def _in_last_part(self, module: Module, step: int) -> bool:
        total = module.progress[1]
        return total is not None and step > self.start * total

    def due(self, module: Module) -> bool:
        """Whether averaging has begun."""
        return self._in_last_part(module, module.steps_done)

    def same_so_far(self, done: int, before: int, now: int) -> bool:
        """Whether averaging begins behind the same step, or behind all that are done."""
        first, second = (min(done, math.floor(self.start * total)) for total in (before, now))
        return first == second and super().same_so_far(done, before, now)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin anew, or go on with what a checkpoint held."""
        super().on_train_start(trainer, pl_module)
        if pl_module.progress[1] is None:
            raise RecipeError("averaging/swa.start is a share of the training, which has no end: set max_epochs or max_steps")
        if self.lr is not None and any("lr" not in group for group in trainer.optimizers[0].param_groups):
            raise RecipeError("averaging/swa.lr: the optimizer has no learning rate; leave it out")
        if self.lr is not None and not self._rate(trainer.optimizers[0].param_groups[0]):
            raise RecipeError(
                "averaging/swa.lr: groups keep their proportion to the rate of the first, which is 0; set optimizer.lr, or leave it out"
            )
        if pl_module.steps_done == 0:
            self.lowered = 1.0
        self._kept = []
        self._norms = measured_norms(pl_module.model)
        self._frozen = {id(layer) for layer in self._norms if not layer.training}

    @staticmethod
    def _rate(group: Mapping[str, Any]) -> float:
        return float(group.get("initial_lr", group["lr"]))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Put the constant learning rate in place for this step; the schedule goes on beneath it."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self.lr is None or not self._in_last_part(pl_module, pl_module.steps_done + 1) or not self.acts(pl_module.progress):
            return
        groups = trainer.optimizers[0].param_groups
        rates = [self.lr * self.lowered * (self._rate(group) / self._rate(groups[0])) for group in groups]
        self._kept = [(group["lr"], rate) for group, rate in zip(groups, rates, strict=True)]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = torch.full_like(group["lr"], rate) if isinstance(group["lr"], Tensor) else rate
        self.record(pl_module, "lr", rates[0])

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Give the schedule its rates back, and take the weights into the average."""
        for place, (group, (scheduled, rate)) in enumerate(zip(optimizer.param_groups, self._kept, strict=False)):
            factor = float(group["lr"]) / rate
            if abs(factor - 1) > 1e-6:  # a guard has undone the step, and lowered the rate
                self.lowered *= factor if place == 0 else 1.0
                scheduled = scheduled * factor
            group["lr"] = scheduled
        self._kept = []
        self._frozen = {id(layer) for layer in self._norms if not layer.training}  # some may thaw on the way
        super().after_step(module, optimizer)

    def calibrate(self, module: Module, batches: Iterable[Batch]) -> None:
        """Measure the statistics of norm layers for the average that is in place."""
        if self.count:
            measure_norms(module, batches, self._frozen or ())

    def state_dict(self) -> dict[str, Any]:
        """The average, its count, and by what the rate was lowered."""
        return {**super().state_dict(), "lowered": self.lowered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self.lowered = state_dict["lowered"]
