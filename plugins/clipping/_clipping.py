"""What techniques share that clip the gradient: they log its norm before and after."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from plugins.base import Module, Plugin, Stage


class Clipping(Plugin):
    """Clips the gradient; a subclass says in `clip` how."""

    stage = Stage.CLIPPING

    def clip(self, module: Module, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
        """Change gradients in place; the norm over all of them before and after."""
        raise NotImplementedError

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Clip, and log the norm before and after."""
        before, after = self.clip(module, parameters)
        self.record(module, "before", before)
        self.record(module, "after", after)
