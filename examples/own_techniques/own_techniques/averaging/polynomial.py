"""Averages of weights that forget the start."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.averaging._average import Averaging
from plugins.base import declare


class Polynomial(Averaging):
    """Evaluate and keep an average of the weights in which later steps count more.

    θ̄_t = (1 − s) θ̄_(t−1) + s θ_t with s = (power + 1) / (t + power): after t steps the first 1/(power + 1) of them hardly count.
    Running statistics, such as batch norm's, are averaged along.

    Source: Shamir & Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML 2013 (polynomial-decay averaging).
    """

    power: float = declare.number("how much later steps count, 0 for the plain mean", default=3.0, least=0)

    def move(self, average: list[Tensor], weights: list[Tensor]) -> None:
        """Take the new weights in."""
        torch._foreach_lerp_(average, weights, (self.power + 1) / (self.count + 1 + self.power))
