"""Weighted sampling by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import RecipeError, Refusal, Selection, declare
from plugins.sampling._drawing import ByClass, systematic

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

ROOT = "square_root"


def weights_of_samples(
    labels: Int[Tensor, " samples"], weights: str | Sequence[float], known: Bool[Tensor, " samples"] | None = None
) -> Float[Tensor, " samples"]:
    """The weight of each sample's class, in double precision: as given, or 1/√n_c with n_c samples in it; of those not `known` to have one 0."""
    known = torch.ones_like(labels, dtype=torch.bool) if known is None else known
    if isinstance(weights, str):
        _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
        return counts.double().rsqrt()[inverse] * known
    known = known & (labels >= 0) & (labels < len(weights))
    return torch.tensor(weights, dtype=torch.float64)[labels.where(known, 0)] * known


def _are_weights(value: object) -> bool:
    if value == ROOT:
        return True
    if not isinstance(value, (list, tuple)) or not any(value):
        return False
    return all(isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < math.inf for each in value)


class WeightedSampling(ByClass):
    """Draw the samples of some classes more often than those of others.

    An epoch has as many samples as the training split, n, and sample i of class y_i is expected n · w_{y_i} / Σ_j w_{y_j} times in it; it
    stands there that often, one less or more at most. With square_root, w_c = 1/√n_c, a class with n_c samples is drawn in proportion to √n_c:
    between the data's own shares and `+sampling=balanced`. A class of weight 0 is never drawn, nor is a label that the loss ignores. The loss is not weighted: what is minimized
    is the mean over what is drawn. Metrics in training count what is drawn; validation and test keep the classes' own shares.

    Raises:
        RecipeError: weights that leave no sample.
        Refusal: no target with classes, several of which none is named, or a name that none of them has; not a weight for each class.

    Source: torch.utils.data.WeightedRandomSampler; Mahajan et al., "Exploring the limits of weakly supervised pretraining", ECCV 2018
    (square root).
    """

    draws = "by class"

    weights: str | Sequence[float] = declare.value(
        "square_root: 1/√ of how often the class occurs | [1,2,0.5]: a weight for each class",
        "square_root, or a list of finite weights ≥ 0 that are not all 0",
        _are_weights,
        default=ROOT,
        more="Only the ratios of weights matter.",
    )

    def check(self, selection: Selection) -> None:
        """Refuse data whose classes are none, are not known, or are not as many as weights."""
        super().check(selection)
        (task,) = [task for task in selection.setting.tasks if task.name == self.classes(selection.setting)]
        if not isinstance(self.weights, str) and len(self.weights) != task.outputs:
            raise Refusal(
                f"sampling.weights must have a weight for each of the {task.outputs} classes{f' of {task.name}' if task.name else ''}, got "
                f"{len(self.weights)}: type as many"
            )

    def order(self, labels: Mapping[str, Tensor], epoch: int, generator: torch.Generator) -> Tensor:
        """Each sample as often as the weight of its class says."""
        of_samples = labels[self.classes(self.setting)].flatten().long()
        weights = weights_of_samples(of_samples, self.weights, self.known(of_samples, self.setting))
        if not weights.any():
            raise RecipeError(
                f"sampling.weights={self.weights if isinstance(self.weights, str) else list(self.weights)}: no training sample is in a class that has a weight: give it one"
            )
        return systematic(weights, generator)
