"""The L2 norm penalty, or weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from plugins.base import Batch, Module, Plugin, Refusal, Selection, Stage, declare
from plugins.parameters import weights_of
from plugins.regularizer._norms import square_sum

if TYPE_CHECKING:
    from jaxtyping import Float


def l2_penalty(weights: Iterable[Tensor], weight: float) -> Float[Tensor, ""]:
    """weight/2 · Σ‖w‖², a scalar; its gradient is weight · w."""
    return weight / 2 * square_sum(weights)


class L2Penalty(Plugin):
    """Pull weights towards zero in proportion to their size.

    J̃(w) = J(w) + weight/2 · Σ‖w‖², over weights, not biases or the parameters of norm layers. A step of plain gradient
    descent with rate η then scales w by 1 − η · weight; with an adaptive optimizer it is not the same as weight decay.

    Raises:
        Refusal: trainer=fsdp, where each process keeps only parts of the weights.

    Source: Goodfellow et al., Deep Learning, 7.1.1; lectures A and E.
    """

    stage = Stage.PENALTY
    on_named_inputs = True
    on_class_maps = True

    weight: float = declare.number("factor λ of the penalty λ/2 · Σ‖w‖²", default=1e-4, least=0, off=0.0)

    def check(self, selection: Selection) -> None:
        """Name the equal that works where each process keeps only parts of the weights."""
        if selection.sharded:
            raise Refusal(
                "regularizer/l2 needs whole weights, and with trainer=fsdp each process keeps only parts of them: type "
                f"optimizer.weight_decay={self.weight:g} optimizer.no_decay=[bias,norm] in its place, or trainer=ddp"
            )

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The penalty on the weights as they are in this pass."""
        penalty = l2_penalty(weights_of(module.model), self.weight)
        self.record(module, "penalty", penalty)
        return penalty
