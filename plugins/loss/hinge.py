"""The multi-class hinge loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import RecipeError, declare
from plugins.declare import Declared

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def hinge(
    scores: Float[Tensor, "samples classes"], labels: Int[Tensor, " samples"], margin: float
) -> Float[Tensor, " samples"]:
    """Σ over j ≠ y of max(0, margin + s_j − s_y)."""
    label = labels.long().unsqueeze(1)
    return (margin + scores - scores.gather(1, label)).clamp_min(0).scatter(1, label, 0.0).sum(1)


class Hinge(Declared):
    """Raise the score of the true class above that of each other one by a margin.

    lossᵢ = Σ_y qᵢ_y Σ_(j≠y) max(0, margin + sᵢⱼ − sᵢ_y), with q one at the label where the targets are labels: softened or mixed
    targets have the mean of what the labels in them would have. The scores are no logits.

    Shapes: output s (samples, classes); target (samples,) of whole numbers, or probabilities q (samples, classes). A value for each
    sample (samples,).

    Raises:
        RecipeError: fewer than two outputs; targets that are neither.

    Source: Weston & Watkins, "Support Vector Machines for Multi-Class Pattern Recognition", ESANN 1999.
    """

    takes_logits = False

    margin: float = declare.number("by how much the true class must be ahead", default=1.0, above=0)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """One value a sample, (samples,)."""
        if output.ndim != 2 or output.shape[1] < 2:
            raise RecipeError(f"loss=hinge needs an output for each class, got outputs of shape {tuple(output.shape)}")
        output = output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
        if not target.is_floating_point():
            return hinge(output, target, self.margin)
        if target.shape != output.shape:
            raise RecipeError(f"loss=hinge needs labels or probabilities, got shape {tuple(target.shape)}; type loss=mse")
        labels = torch.arange(output.shape[1], device=output.device).expand(len(output), -1)
        of_label = torch.stack([hinge(output, label, self.margin) for label in labels.unbind(1)], 1)
        return (target * of_label).sum(1)
