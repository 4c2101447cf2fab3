"""Mean subtraction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from plugins.preprocessing._fitted import FittedInputs, per_parameter
from plugins.preprocessing._layer import moments


class CenterInputs(FittedInputs):
    """Subtract the mean of the training split.

    x ← x − mean, where the mean is over the training samples only, and the same for every split. Of several inputs by name those that
    are numbers are centered, and what a mask leaves out is in no mean, and 0.

    Raises:
        RecipeError: training inputs that are not finite.

    Source: lectures A, B, D and E.
    """

    per: str | None = per_parameter()

    def factors(self, inputs: Callable[[], Iterator[Tensor]] | None, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The mean, and one."""
        return moments(inputs(), shape)[0] if inputs else torch.zeros(tuple(shape)), torch.ones(tuple(shape))
