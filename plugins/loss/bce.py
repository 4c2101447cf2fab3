"""Binary cross entropy, for each label by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from plugins.base import RecipeError, Task, declare
from plugins.loss._kinds import LossOfLabels

if TYPE_CHECKING:
    from jaxtyping import Float


def binary_cross_entropy(
    logits: Float[Tensor, "samples labels *places"], shares: Float[Tensor, "samples labels *places"], positive: Any = 1.0
) -> Float[Tensor, "samples labels *places"]:
    """−w t ln σ(z) − (1 − t) ln(1 − σ(z)) of each label, with a weight w for those that are there."""
    return positive * shares * functional.softplus(-logits) + (1 - shares) * functional.softplus(logits)


def _is_weight(value: object) -> bool:
    each = value if isinstance(value, (list, tuple)) else [value]
    return bool(each) and all(
        isinstance(one, (int, float)) and not isinstance(one, bool) and 0 < one < math.inf for one in each
    )


class BinaryCrossEntropy(LossOfLabels):
    """Decide each label by itself: the loss of several labels a sample, and of classes one against the rest.

    lossᵢ = meanⱼ −wⱼ tᵢⱼ ln σ(zᵢⱼ) − (1 − tᵢⱼ) ln(1 − σ(zᵢⱼ)). Of several labels the outputs are logits, from which probabilities are
    made by a sigmoid; of classes, as one-hot vectors or softened, they are not those of a softmax.

    Shapes: output z (samples, labels); target truth values, or probabilities, (samples, labels), of classes (samples,) too. A value for
    each sample (samples,). Class maps have a value for each place.

    Raises:
        RecipeError: the numbers of a regression; not a weight for each label; a threshold for classes, of which the most probable counts.

    Source: Bishop, "Pattern Recognition and Machine Learning", section 4.3.2; for classes Wightman et al., "ResNet strikes back", 2021.
    """

    threshold: float = declare.number(
        "probability from which on a label counts as predicted, of several a sample", default=0.5, above=0, below=1
    )
    pos_weight: float | Sequence[float] | None = declare.value(
        "weight of a label that is there, against 1 of one that is not, a number or [NUMBERS] for each label",
        "a number > 0, or a list of a number > 0 for each label",
        _is_weight,
        default=None,
        null="1",
    )

    @property
    def takes_logits(self) -> bool:
        """Whether probabilities can be made of the outputs: of several labels."""
        return self.several

    def refine(self, task: Task) -> Task:
        """Several labels a sample, with the probability from which on one counts as predicted."""
        return replace(task, threshold=self.threshold) if task.kind == "multilabel" else task

    def for_task(self, task: Task) -> BinaryCrossEntropy:
        """The loss of one task."""
        found = super().for_task(task)
        if isinstance(self.pos_weight, Sequence) and len(self.pos_weight) != task.outputs:
            raise RecipeError(
                f"loss.pos_weight must have a weight for each of the {task.outputs} labels"
                f"{f' of {task.name}' if task.name else ''}, got {len(self.pos_weight)}"
            )
        if task.kind == "classification" and self.threshold != 0.5:
            raise RecipeError(
                "loss.threshold is for several labels a sample, and of classes the most probable one is predicted: leave it out"
            )
        return found

    def of_classes(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The mean over the classes, each against the rest."""
        return self._values(logits, shares).mean(1)

    def of_labels(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The loss of each label."""
        return self._values(logits, shares)

    def _values(self, logits: Tensor, shares: Tensor) -> Tensor:
        weight: Any = 1.0 if self.pos_weight is None else self.pos_weight
        if isinstance(weight, Sequence):
            weight = torch.tensor(weight, dtype=logits.dtype, device=logits.device).view(-1, *[1] * (logits.ndim - 2))
        return binary_cross_entropy(logits, shares, weight)
