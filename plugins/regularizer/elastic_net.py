"""The elastic net penalty (Zou & Hastie, 2005)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from plugins.base import Batch, Module, Plugin, Stage, declare
from plugins.parameters import weights_of
from plugins.regularizer._norms import absolute_sum, square_sum

if TYPE_CHECKING:
    from jaxtyping import Float


def elastic_net(weights: Iterable[Tensor], l1: float, l2: float) -> Float[Tensor, ""]:
    """l1 · Σ|w| + l2 · Σw² over all weights, a scalar."""
    weights = list(weights)
    return l1 * absolute_sum(weights) + l2 * square_sum(weights)


class ElasticNet(Plugin):
    """Pull weights towards zero by an L1 and an L2 penalty at once: small ones vanish, and such as go together stay together.

    J(θ) + l1 · ‖w‖₁ + l2 · ‖w‖₂², over weights, not biases or the parameters of norm layers. Of λ R(w) with R(w) = β‖w‖₂² + ‖w‖₁, l1 is λ
    and l2 is λβ. The square has no ½ here: l2 is half the weight of `+regularizer=l2`.

    Source: Zou & Hastie, "Regularization and variable selection via the elastic net", JRSS B 2005; lecture E.
    """

    stage = Stage.PENALTY
    on_named_inputs = True
    on_class_maps = True

    l1: float = declare.number("factor of Σ|w|", default=1e-5, least=0, off=0.0)
    l2: float = declare.number("factor of Σw²", default=1e-4, least=0, off=0.0)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The penalty on the weights as they are in this pass."""
        penalty = elastic_net(weights_of(module.model), self.l1, self.l2)
        self.record(module, "penalty", penalty)
        return penalty
