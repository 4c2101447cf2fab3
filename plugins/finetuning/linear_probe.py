"""A linear probe, then fine-tuning (Kumar et al., 2022)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from plugins.base import declare
from plugins.finetuning._freezing import LATE, Freezing, by_depth, called, share_of


class LinearProbe(Freezing):
    """Train the head alone for some epochs, then all layers.

    A head that is drawn at random would first tear apart the features it stands on. Until it has learned they keep their weights,
    and their norm layers their statistics.

    Raises:
        RecipeError: a model of one layer; training data without an end.
        Refusal: an optimizer that counts the steps of all parameters together: schedule_free, timm, pytorch_optimizer, adan, soap.

    Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
    """

    refuses = LATE

    epochs: float = declare.number("epochs in which the head alone is trained", default=1.0, least=0, off=0.0)

    def starts(self, model: nn.Module) -> Mapping[str, float]:
        """After `epochs`, but for the head."""
        head, *others = by_depth(model, self.state_key).values()
        self.remarks = [f"trains {called(head)} ({share_of(model, head)}), from epoch {self.epochs:g} on all"]
        return dict.fromkeys(head, 0.0) | {name: self.epochs for block in others for name in block}
