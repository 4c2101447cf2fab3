"""Leaving out steps whose gradient is far too large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import get_total_norm

from plugins.base import Module, Plugin, Stage, declare


class SkipSpikes(Plugin):
    """Leave out the gradient of a step in which it is much longer than it has been, so that one bad batch does no harm.

    g ← 0 where ‖g‖₂ > factor · m, with m the mean of ‖g‖₂ over the steps before; the first ten steps all count.

    Source: Chowdhery et al., "PaLM", JMLR 2023, section 5.1 (batches at which the loss spikes are skipped).
    """

    stage = Stage.GUARD

    factor: float = declare.number("times the mean norm that are too much", default=10.0, above=1)

    def __post_init__(self) -> None:
        self.count, self.mean = 0, 0.0

    @torch.no_grad()
    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Right before the update."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = float(get_total_norm(gradients))
        if self.count >= 10 and not norm <= self.factor * self.mean:
            for gradient in gradients:
                gradient.zero_()
            return
        self.count += 1
        self.mean += (norm - self.mean) / self.count

    def state_dict(self) -> dict[str, Any]:
        """What the gradients were."""
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.count, self.mean = state_dict["count"], state_dict["mean"]
