"""The focal loss (Lin et al., 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import declare
from plugins.loss._kinds import LossOfLabels

if TYPE_CHECKING:
    from jaxtyping import Float


def focal(log_probability: Float[Tensor, " *shape"], gamma: float) -> Float[Tensor, " *shape"]:
    """−(1 − p)^γ ln p."""
    doubt = -torch.expm1(log_probability)
    return -(doubt.clamp_min(torch.finfo(doubt.dtype).eps) ** gamma) * log_probability  # a slope at 0 would be infinite


class FocalLoss(LossOfLabels):
    """Cross entropy in which what is predicted well counts less, so that a few hard samples are not lost among many easy ones.

    lossᵢ = Σⱼ qᵢⱼ · −(1 − pᵢⱼ)^γ ln pᵢⱼ, with p = softmax(z), and q one at the label where the targets are labels. Of several labels a
    sample the mean over labels of −t (1 − p)^γ ln p − (1 − t) p^γ ln(1 − p), with p = σ(z). γ = 0 is cross entropy.

    Shapes: output z (samples, classes); target (samples,) of whole numbers, or probabilities (samples, classes); of several labels
    both (samples, labels). A value for each sample (samples,). Class maps have a value for each place.

    Raises:
        RecipeError: the numbers of a regression; fewer than two classes; targets of another shape.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """

    gamma: float = declare.number("γ, how much less a sample counts that is predicted well", default=2.0, least=0)

    def of_classes(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The sum over classes, by their shares."""
        return (shares * focal(logits.log_softmax(1), self.gamma)).sum(1)

    def of_labels(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The loss of each label."""
        there, absent = (focal(torch.nn.functional.logsigmoid(z), self.gamma) for z in (logits, -logits))
        return shares * there + (1 - shares) * absent
