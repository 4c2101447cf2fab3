"""Features on one interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from plugins.base import declare, expect
from plugins.preprocessing._fitted import FittedInputs
from plugins.preprocessing._layer import ends


class MinMaxInputs(FittedInputs):
    """Put each feature on one interval by its smallest and largest value in the training split.

    x ← low + (x − min)(high − low) / (max − min), min and max over the training samples only, and the same for every split, whose values may
    lie outside. A pixel of an image is a feature, with its channels apart. A feature that is constant in training is shifted to low, and
    divided by 1. Of several inputs by name those that are numbers are put so, and what a mask leaves out counts for nothing, and is 0.

    Raises:
        RecipeError: low is not below high; training inputs that are not finite.

    Source: lecture B, "approach B".
    """

    per = "feature"

    low: float = declare.number("where the smallest value of a feature in training goes", default=-1.0)
    high: float = declare.number("where the largest goes", default=1.0, note="above low")

    def __post_init__(self) -> None:
        expect(
            self.low < self.high, "preprocessing.low and preprocessing.high", "two numbers, low < high", (self.low, self.high)
        )

    def factors(self, inputs: Callable[[], Iterator[Tensor]] | None, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What is subtracted, and the factor."""
        if inputs is None:
            return torch.zeros(tuple(shape)), torch.ones(tuple(shape))
        smallest, largest = ends(inputs(), shape)
        spread = largest - smallest
        scale = (self.high - self.low) / torch.where(spread > 0, spread, 1.0)
        return smallest - self.low / scale, scale
