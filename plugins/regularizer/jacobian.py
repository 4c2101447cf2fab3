"""Jacobian regularization by random projection (Hoffman et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plugins.base import Batch, Module, Plugin, RecipeError, Refusal, Selection, Stage, declare
from plugins.compiled import is_compiled
from plugins.inputs import each
from plugins.passes import differentiable_twice

if TYPE_CHECKING:
    from jaxtyping import Float


def projected_norm(
    outputs: Float[Tensor, "samples outputs"], inputs: Sequence[Tensor], directions: Float[Tensor, "samples outputs"]
) -> Float[Tensor, ""]:
    """k · ‖∂(v · z)/∂x‖² with k outputs, the mean over samples: for unit vectors v that are drawn uniformly its mean is ‖∂z/∂x‖²."""
    found = torch.autograd.grad(outputs, inputs, directions, create_graph=True, allow_unused=True)
    squares = [gradient.float().square().flatten(1).sum(1) for gradient in found if gradient is not None]
    return outputs.shape[1] * torch.stack(squares).sum(0).mean() if squares else outputs.new_zeros(())


def unit_vectors(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "samples outputs"]:
    """Directions (samples, outputs), each drawn uniformly from the unit sphere."""
    return nn.functional.normalize(torch.randn(*shape, generator=generator, device=generator.device), dim=1)


class JacobianPenalty(Plugin):
    """Have predictions change little where inputs do.

    J(θ) + weight · E ‖∂z/∂x‖²_F, the mean over the samples, with the outputs z before any softmax, of all tasks, and raw inputs x. The norm is
    estimated by one random direction a sample and step: ‖∂z/∂x‖² = k · E ‖∂(v · z)/∂x‖² over unit vectors v of k outputs. Costs a backward
    pass to the inputs, and a backward pass through it; attention and recurrent layers are computed in a way that has second derivatives.
    Outputs of a regression are in the units of the target, so that the weight is for each squared unit of it.

    Raises:
        Refusal: inputs that are whole numbers; trainer.compile=true, which has no second derivatives.

    Source: Hoffman, Roberts & Yaida, "Robust Learning with Jacobian Regularization", 2019.
    """

    stage = Stage.PENALTY
    on_named_inputs = True
    on_class_maps = True

    weight: float = declare.number("factor λ of the penalty λ · ‖∂z/∂x‖²", default=0.01, least=0, off=0.0)

    def check(self, selection: Selection) -> None:
        """Refuse inputs by which nothing can be differentiated, and what has no second derivatives."""
        if not selection.setting.has_quantities:
            raise Refusal(
                f"{self.state_key} differentiates by inputs that are numbers, and these are whole ones that stand for something: leave it out"
            )
        if selection.compiled:
            raise Refusal(
                f"{self.state_key} differentiates a gradient, which a compiled model cannot: type trainer.compile=false, or leave it out"
            )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is; learn whether it has recurrent layers."""
        if is_compiled(model):
            raise RecipeError(f"{self.state_key} differentiates a gradient, which a compiled model cannot: give it as it is")
        self.recurrent = any(isinstance(part, nn.RNNBase) for part in model.modules())
        return model

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Have gradients lead to the inputs, as all other techniques have made them."""
        x = each(batch.x, _leading)
        return replace(batch, x=x, extra={**batch.extra, self.state_key: x})

    def around_pass(self, module: Module, batch: Batch) -> AbstractContextManager[Any]:
        """Compute all layers in a way that can be differentiated twice."""
        return differentiable_twice(self.recurrent)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The estimate for this pass."""
        x = batch.extra[self.state_key]
        leaves = [value for value in (x.values() if isinstance(x, Mapping) else (x,)) if value.requires_grad]
        kind = module.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            z = torch.cat([output.float().flatten(1) for output in outputs.values()], 1)
            directions = unit_vectors(z.shape, module.generator(self.option))
            if batch.correction is not None:  # for how often a sample is drawn; the estimate is quadratic in its direction
                directions = directions * batch.correction.sqrt().unsqueeze(1)
            found = projected_norm(z, leaves, directions)
        self.record(module, "squared_norm", found)
        return self.weight * found


def _leading(value: Tensor) -> Tensor:
    """Inputs of which a gradient can be asked; those of an attack that waits for its gradient let it through, by a view with one of its own."""
    if not value.is_floating_point():
        return value
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
