"""Mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from plugins.base import RecipeError, class_probabilities


class MSE:
    """The mean of squared differences.

    lossᵢ = meanⱼ (zᵢⱼ − tᵢⱼ)². Labels of a classification count as one-hot vectors t.

    Shapes: output (samples, outputs), or (samples, 1) for targets (samples,); whole numbers are labels where there are
    two outputs or more. A value for each sample (samples,), or with reduction "mean" their mean. Class maps have a value for each
    place: outputs (samples, classes, *places), labels and values (samples, *places).

    Raises:
        RecipeError: shapes that do not match, which would broadcast without a word.

    Source: lecture E; for classification Hui & Belkin, "Evaluation of neural architectures trained with square loss vs
    cross-entropy", ICLR 2021.
    """

    takes_logits = False

    def __call__(self, output: Tensor, target: Tensor, reduction: str = "none") -> Tensor:
        """One value a sample, the mean over its outputs, (samples,); with reduction "mean" a scalar."""
        if not target.is_floating_point() and output.ndim == target.ndim + 1 and output.shape[1] > 1:
            target = class_probabilities(target, output.shape[1])
        if output.shape == (*target.shape, 1):
            output = output.squeeze(-1)
        elif target.shape == (*output.shape, 1):
            target = target.squeeze(-1)
        if output.shape != target.shape:
            raise RecipeError(
                f"loss=mse needs outputs and targets of one shape, got {tuple(output.shape)} and {tuple(target.shape)}"
            )
        if output.dtype in (torch.bfloat16, torch.float16):
            output = output.float()
        values = functional.mse_loss(output, target.to(output.dtype), reduction=reduction)
        return values.mean(1) if values.ndim > 1 else values
