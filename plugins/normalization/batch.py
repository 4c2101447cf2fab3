"""Batch normalization (Ioffe & Szegedy, 2015)."""

from __future__ import annotations

from torch import nn

from plugins.base import Plugin, Refusal, Selection, Stage, declare
from plugins.normalization._place import place_norms


class BatchNormalization(Plugin):
    """Give each feature zero mean and unit variance over the batch, then a learned scale and shift.

    y = γ (x − μ) / √(σ² + eps) + β, with μ and σ² = mean of (x − μ)² over the samples, and positions, of the batch in training.
    At test they are running averages over the training batches: μ̄ ← (1 − momentum) μ̄ + momentum · μ, and so for σ².

    The norm follows each linear or convolution layer that a nonlinearity follows, and replaces the norm layers of the model.
    Each part of an accumulated step and each process normalizes by its own samples, with running averages over all of them;
    `trainer.sync_batchnorm=true` joins the processes of several GPUs.

    Raises:
        RecipeError: no place for a norm layer in the model.
        Refusal: batches of one sample, which are their own mean; inputs by name, such as tokens with a mask.

    Source: Ioffe & Szegedy, "Batch normalization", ICML 2015; lectures A, B, D and E.
    """

    stage = Stage.NORMALIZATION

    momentum: float = declare.share("share of the new batch in the running mean and variance", default=0.1)
    eps: float = declare.number("added to the variance", default=1e-5, above=0)

    def check(self, selection: Selection) -> None:
        """Refuse batches without variance, and inputs with a mask: statistics would count what it leaves out."""
        if selection.setting.is_named:
            raise Refusal(
                f"normalization/batch would take statistics over all places, also those that a mask leaves out, and the inputs are "
                f"{', '.join(selection.setting.shape)}: type normalization=model"
            )
        if selection.batch_size is not None and selection.batch_size < 2 * selection.devices:
            raise Refusal(
                "normalization/batch cannot be combined with one sample a forward pass, whose variance is 0: use "
                f"data.batch_size={2 * selection.devices} or more, or normalization=model"
            )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layers in."""
        place_norms(model, self.setting.shape, self.make)
        return model

    def make(self, features: int, positions: int) -> nn.Module:
        """A norm for (samples, features) and that many dimensions of positions."""
        kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[positions]
        return kind(features, self.eps, self.momentum)
