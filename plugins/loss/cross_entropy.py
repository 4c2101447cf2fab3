"""Cross entropy of a softmax."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from plugins.base import RecipeError, expect

NEVER = -100  # torch's default, a label that no target has


class CrossEntropy:
    """The negative log-likelihood of the true class, or of a distribution over classes.

    lossᵢ = −Σⱼ qᵢⱼ log softmax(zᵢ)ⱼ, with q one at the label where the targets are labels.

    Shapes: output z (samples, classes); target (samples,) of whole numbers, or probabilities q (samples, classes). A value for each
    sample (samples,), or with reduction "mean" their mean, over those that are not ignored. Class maps have a value for each place:
    outputs (samples, classes, *places), target and values (samples, *places).

    Args:
        ignore_index: the label of what is not learned from, such as 255 in class maps; None: there is none.

    Raises:
        RecipeError: fewer than two outputs, whose cross entropy is always 0; targets that are neither.

    Source: lecture E.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        whole = ignore_index is None or (isinstance(ignore_index, int) and not isinstance(ignore_index, bool))
        expect(whole, "loss.ignore_index", "a whole number, or null", ignore_index)
        self.ignore_index = ignore_index

    def __call__(self, output: Tensor, target: Tensor, reduction: str = "none", ignore_index: int | None = None) -> Tensor:
        """One value a label, (samples, *places); with reduction "mean" a scalar. `ignore_index` is that of the loss where it is None."""
        if output.ndim < 2 or output.shape[1] < 2:
            raise RecipeError(f"loss=cross_entropy needs an output for each class, got outputs of shape {tuple(output.shape)}")
        if not target.is_floating_point():
            target = target.long()
        elif target.shape != output.shape:
            raise RecipeError(
                f"loss=cross_entropy needs labels or probabilities of shape {tuple(output.shape)}, got numbers of shape "
                f"{tuple(target.shape)}; for a regression take loss=mse"
            )
        if output.dtype in (torch.bfloat16, torch.float16):
            output = output.float()  # low precision loses what a sum of exponentials needs
        ignored = self.ignore_index if ignore_index is None else ignore_index
        return functional.cross_entropy(output, target, reduction=reduction, ignore_index=NEVER if ignored is None else ignored)
