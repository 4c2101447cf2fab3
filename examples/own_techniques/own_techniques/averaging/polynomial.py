"""Averages of weights that forget the start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Module, Plugin, Stage, declare


class Polynomial(Plugin):
    """Evaluate and keep an average of the weights in which later steps count more.

    θ̄_t = (1 − s) θ̄_(t−1) + s θ_t with s = (power + 1) / (t + power): after t steps the first 1/(power + 1) of them hardly count.

    Source: Shamir & Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML 2013 (polynomial-decay averaging).
    """

    stage = Stage.AVERAGING

    power: float = declare.number("how much later steps count, 0 for the plain mean", default=3.0, least=0)

    def __post_init__(self) -> None:
        self.count, self.mean = 0, {}

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Take the new weights in."""
        self.count += 1
        share = (self.power + 1) / (self.count + self.power)
        for name, weight in module.model.named_parameters():
            before = self.mean[name].to(weight.device) if name in self.mean else weight  # a checkpoint's are on the CPU
            self.mean[name] = torch.lerp(before, weight, share)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Forget the average behind the last step in which it acts."""
        if not self.acts(pl_module.progress):
            self.count, self.mean = 0, {}

    @contextmanager
    def evaluation_weights(self, module: Module) -> Iterator[None]:
        """The average in place of the weights; they come back bit for bit."""
        kept = {name: weight.detach().clone() for name, weight in module.model.named_parameters()}
        put(module, self.mean)
        try:
            yield
        finally:
            put(module, kept)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Leave the average in the model: it is what was trained."""
        put(pl_module, self.mean)

    def state_dict(self) -> dict[str, Any]:
        """The average and how many weights are in it."""
        return {"count": self.count, "mean": dict(self.mean)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.count, self.mean = state_dict["count"], dict(state_dict["mean"])


@torch.no_grad()
def put(module: Module, weights: dict[str, Tensor]) -> None:
    """Write weights into the model, by name."""
    for name, weight in module.model.named_parameters():
        if name in weights:
            weight.copy_(weights[name])
