"""Group normalization (Wu & He, 2018)."""

from __future__ import annotations

import math

from torch import nn

from plugins.base import RecipeError, declare
from plugins.normalization._groups import fitting_groups
from plugins.normalization._over import SampleStatistics


class GroupNormalization(SampleStatistics):
    """Give each group of features of a sample zero mean and unit variance, then each feature a learned scale and shift.

    y = γ (x − μ) / √(σ² + 10⁻⁵) + β, with μ and σ² over the features of a group and all positions of a sample. One group is layer
    normalization of a convolution, as many groups as features is instance normalization.

    The norm follows each linear or convolution layer that a nonlinearity follows, and replaces the norm layers of the model. Where each
    group would be one number there is none.

    Raises:
        RecipeError: features that make no such groups of equal size; no place for a norm layer in the model; places that a mask leaves out.

    Source: Wu & He, "Group Normalization", ECCV 2018.
    """

    groups: int | None = declare.count(
        "groups of features", default=None, null="as many, up to 32, as leave 16 numbers or more to each"
    )

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, features, *places)."""
        count = fitting_groups(features, places) if self.groups is None else self.groups
        if features % count:
            fits = max(number for number in range(1, count + 1) if features % number == 0)
            raise RecipeError(
                f"normalization/group: a layer of {features} features makes no {count} groups of equal size: type normalization.groups={fits}"
            )
        return nn.GroupNorm(count, features) if features // count * math.prod(places) > 1 else None
