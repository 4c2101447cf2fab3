"""Cross entropy of a softmax."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from plugins.base import RecipeError


class CrossEntropy:
    """The negative log-likelihood of the true class, or of a distribution over classes.

    lossᵢ = −Σⱼ qᵢⱼ log softmax(zᵢ)ⱼ, with q one at the label where the targets are labels.

    Shapes: output z (samples, classes); target (samples,) of whole numbers, or probabilities q (samples, classes). A value for each
    sample (samples,), or with reduction "mean" their mean.

    Raises:
        RecipeError: fewer than two outputs, whose cross entropy is always 0; targets that are neither.

    Source: lecture E.
    """

    def __call__(self, output: Tensor, target: Tensor, reduction: str = "none") -> Tensor:
        """One value a sample, (samples,); with reduction "mean" a scalar."""
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
        return functional.cross_entropy(output, target, reduction=reduction)
