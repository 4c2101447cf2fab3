"""Mean absolute error."""

from __future__ import annotations

from torch import Tensor

from plugins.loss._kinds import LossOfNumbers


class MAE(LossOfNumbers):
    """The mean of absolute differences, whose best prediction is the median.

    lossᵢ = meanⱼ |zᵢⱼ − tᵢⱼ|.

    Shapes: output and target (samples, outputs), or a target (samples,) for one output. A value for each sample (samples,).

    Raises:
        RecipeError: labels; shapes that differ.

    Source: Koenker & Bassett, "Regression Quantiles", Econometrica 1978 (q = ½, times 2).
    """

    def values(self, residual: Tensor) -> Tensor:
        """|r|."""
        return residual.abs()
