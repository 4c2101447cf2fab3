"""Several targets, of which the first is what matters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from plugins.base import Module, declare
from plugins.multitask._heads import MultiTask


class Auxiliary(MultiTask):
    """Learn the first target, and the others only as far as they help it.

    J = J_first + weight · Σ J_other.

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015 (auxiliary losses with the weight 0.3).
    """

    weight: float = declare.number("of each further target", default=0.3, least=0)

    def combine(self, losses: Mapping[str, Tensor], module: Module) -> Tensor:
        """The losses of all tasks as one scalar."""
        first, *others = losses.values()
        return sum((self.weight * loss for loss in others), first)
