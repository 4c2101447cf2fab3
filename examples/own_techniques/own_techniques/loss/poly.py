"""Cross entropy with one more term of its series."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from plugins.base import class_probabilities, expect_nonnegative


class Poly:
    """Cross entropy, and `weight` times the probability that the right class lacks.

    loss = −Σ t log p + weight · (1 − Σ t p) of a sample, with p = softmax(z).

    Args:
        weight: of the further term, ≥ 0; 0 is cross entropy.

    Shapes: output (samples, classes); target (samples,) labels or (samples, classes) probabilities.

    Source: Leng et al., "PolyLoss", ICLR 2022.
    """

    takes_logits = True

    def __init__(self, weight: float = 1.0) -> None:
        expect_nonnegative("weight", weight)
        self.weight = weight

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """One value a sample, so that samples can be weighted: the engine takes the mean."""
        output = output.float()
        missing = 1 - (class_probabilities(target, output.shape[1]) * output.softmax(1)).sum(1)
        return functional.cross_entropy(output, target, reduction="none") + self.weight * missing
