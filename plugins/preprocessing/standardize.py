"""Standardization: zero mean and unit variance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from plugins.base import declare
from plugins.preprocessing._fitted import FittedInputs, per_parameter
from plugins.preprocessing._layer import inverse_std, moments

ROUNDING = 1e-7  # a deviation of a share of the mean as small as this comes from rounding


class StandardizeInputs(FittedInputs):
    """Put inputs on one scale by mean and standard deviation of the training split.

    x ← (x − mean) / std, std² = mean of (x − mean)², both over the training samples only, and the same for every split.
    A feature that is constant in training becomes 0 in every split. Of several inputs by name those that are numbers are put so, and
    what a mask leaves out is in no statistic, and 0.

    Raises:
        RecipeError: training inputs that are not finite.

    Source: lectures A, B, D and E.
    """

    per: str | None = per_parameter()
    eps: float = declare.number(
        "standard deviation up to which a feature counts as constant and becomes 0",
        default=1e-8,
        least=0,
        more="In units of the data.",
    )

    def factors(self, inputs: Callable[[], Iterator[Tensor]] | None, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The mean, and one over the deviation."""
        mean, variance = moments(inputs(), shape) if inputs else (torch.zeros(tuple(shape)), torch.ones(tuple(shape)))
        std = variance.sqrt()
        if small := int(((std > ROUNDING * mean.abs()) & (std <= self.eps)).sum()):
            least = float(std[std > ROUNDING * mean.abs()].min())
            warnings.warn(
                f"{small} of {std.numel()} features deviate by no more than preprocessing.eps={self.eps:g}, and so become 0: type "
                f"preprocessing.eps={least / 10:.0e} if they are not constant",
                stacklevel=1,
            )
        return mean, inverse_std(variance, self.eps)
