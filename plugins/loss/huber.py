"""Huber's loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from plugins.base import declare
from plugins.loss._kinds import LossOfNumbers

if TYPE_CHECKING:
    from jaxtyping import Float


def huber(residual: Float[Tensor, " *shape"], delta: float | Tensor) -> Float[Tensor, " *shape"]:
    """½ r² where |r| ≤ δ, δ (|r| − ½ δ) beyond."""
    size = residual.abs()
    return (0.5 * size.square()).where(size <= delta, delta * (size - 0.5 * delta))


class Huber(LossOfNumbers):
    """Squared error where it is small, absolute error beyond, so that single wild targets do not have the say.

    lossᵢ = meanⱼ h(zᵢⱼ − tᵢⱼ), with h(r) = ½ r² where |r| ≤ δ, and δ (|r| − ½ δ) beyond. Where a regression is learned with deviation 1
    (data.standardize_targets, as by default) δ counts standard deviations of the training targets of a column, also in the loss that
    is reported in their units; otherwise it has these units.

    Shapes: output and target (samples, outputs), or a target (samples,) for one output. A value for each sample (samples,).

    Raises:
        RecipeError: labels; shapes that differ.

    Source: Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 1964.
    """

    delta: float = declare.number(
        "error from which on it counts linearly, in standard deviations of the targets", default=1.0, above=0
    )

    def __post_init__(self) -> None:
        self.deviation: Callable[[], Tensor] | None = None  # of the targets, where they are standardized

    def in_units(self, deviation: Callable[[], Tensor]) -> Huber:
        """The same loss of numbers in the units of the targets, whose deviation, (outputs,), is asked for at each call."""
        found = copy.copy(self)
        found.deviation = deviation
        return found

    def values(self, residual: Tensor) -> Tensor:
        """½ r² where |r| ≤ δ, δ (|r| − ½ δ) beyond."""
        return huber(residual, self.delta if self.deviation is None else self.delta * self.deviation())
