"""The first polynomial loss (Leng et al., 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from plugins.base import declare
from plugins.loss._kinds import LossOfLabels

if TYPE_CHECKING:
    from jaxtyping import Float


def poly1(log_probability: Float[Tensor, " *shape"], epsilon: float) -> Float[Tensor, " *shape"]:
    """−ln p + ε (1 − p)."""
    return -log_probability - epsilon * log_probability.expm1()


class Poly1(LossOfLabels):
    """Cross entropy whose first term in a series of powers of 1 − p counts more, or less.

    lossᵢ = Σⱼ qᵢⱼ (−ln pᵢⱼ + ε (1 − pᵢⱼ)), with p = softmax(z), and q one at the label where the targets are labels: −ln p is the sum of
    (1 − p)^k / k, and ε changes the factor of k = 1. Of several labels a sample the mean over labels, with p = σ(z) of one that is there,
    1 − σ(z) of one that is not. ε = 0 is cross entropy.

    Shapes: output z (samples, classes); target (samples,) of whole numbers, or probabilities (samples, classes); of several labels
    both (samples, labels). A value for each sample (samples,). Class maps have a value for each place.

    Raises:
        RecipeError: the numbers of a regression; fewer than two classes; targets of another shape.

    Source: Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022.
    """

    epsilon: float = declare.number("ε, what is added to the factor 1 of 1 − p", default=1.0, least=-1)

    def of_classes(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The sum over classes, by their shares."""
        return (shares * poly1(logits.log_softmax(1), self.epsilon)).sum(1)

    def of_labels(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The loss of each label."""
        there, absent = (poly1(functional.logsigmoid(z), self.epsilon) for z in (logits, -logits))
        return shares * there + (1 - shares) * absent
