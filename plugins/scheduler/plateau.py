"""A learning rate that falls where the validation loss does not."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from plugins.base import declare
from plugins.declare import Declared


class Plateau(Declared):
    """Multiply the learning rate by `factor` where the validation loss has not fallen for more than `patience` validations.

    v is the val/loss at the last fall that counted, at first the first one; one below v · (1 − threshold) counts as a fall. After
    `patience` + 1 validations in a row without one ε ← max(factor · ε, end_factor · ε_0), and the counting begins anew. The state is in the checkpoint.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau; He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    factor: float = declare.number("factor on the rate at each fall", default=0.1, above=0, below=1)
    patience: int = declare.count("validations in a row without a fall of the loss that are borne", default=5, least=0)
    threshold: float = declare.number("relative fall of the loss that counts", default=1e-4, least=0, below=1)
    end_factor: float = declare.number("least learning rate as a share of the initial one", default=0.0, least=0)

    def __call__(self, optimizer: Optimizer, total_steps: int) -> ReduceLROnPlateau:
        """Make the scheduler, which the engine steps after each validation."""
        least = [self.end_factor * group["lr"] for group in optimizer.param_groups]
        return ReduceLROnPlateau(optimizer, "min", self.factor, self.patience, self.threshold, min_lr=least, eps=0.0)
