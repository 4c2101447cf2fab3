"""The loss that fits the task: cross entropy for a classification, mean squared error for a regression."""

from __future__ import annotations

from torch import Tensor

from plugins.loss.cross_entropy import CrossEntropy
from plugins.loss.mse import MSE


class ByTask:
    """Cross entropy for labels and probabilities, mean squared error for the numbers of a regression.

    Whole numbers are labels. Other numbers are probabilities where there is one for each of two outputs or more, and
    values of a regression where there is one output.

    Shapes: output (samples, outputs); target (samples,), (samples, 1) or (samples, classes).

    Raises:
        RecipeError: shapes that fit neither.
    """

    def __init__(self) -> None:
        self.cross_entropy, self.mse = CrossEntropy(), MSE()

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over samples, a scalar."""
        probabilities = target.ndim > 1 and target.shape[1] > 1
        return (
            self.cross_entropy(output, target) if probabilities or not target.is_floating_point() else self.mse(output, target)
        )
