"""Importance sampling by loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Batch, Module, Refusal, Selection, Stage, declare
from plugins.sample_losses import RemembersLosses
from plugins.sampling._drawing import systematic

if TYPE_CHECKING:
    from jaxtyping import Float


def probabilities(losses: Float[Tensor, " samples"], uniform: float) -> Float[Tensor, " samples"]:
    """p_i = (1 − u) · l_i / Σ_j l_j + u / n, in double precision; a loss that is not known, NaN or infinite, is the mean of those that are."""
    losses = losses.double().clamp_min(0.0)
    known = losses.isfinite()
    losses = losses.where(known, losses[known].mean() if known.any() else 1.0)
    n, total = len(losses), losses.sum()
    share = losses / total if total > 0 else torch.full_like(losses, 1 / n)
    return (1 - uniform) * share + uniform / n


class ImportanceSampling(RemembersLosses):
    """Draw samples of large loss more often, and have each count less where it is drawn more often.

    An epoch has as many samples as the training split, n. Sample i is expected n · p_i times in it, with
    p_i = (1 − u) · l_i / Σ_j l_j + u / n, where l_i is the loss that it had when it was last trained on before the epoch, added up over tasks.
    Its loss is multiplied by 1 / (n · p_i), at most 1/u, so that the mean of what is minimized over all draws is the mean over the split:
    the same is learned, from samples that have more to tell. Where samples have weights, or labels may be ignored, the sum is divided by that
    of the weights times these factors, and the ratio tends to that of the split with the size of a step. What has the weight 0, or an ignored
    label, has the loss 0. In the first epoch all are alike. Losses are those of the steps, so no pass is added; the mean over what is drawn,
    `train/loss`, is larger than that over the split.

    Raises:
        RecipeError: a loss that returns one number for all samples.
        Refusal: samples are mixed with each other.

    Source: Katharopoulos & Fleuret, "Not all samples are created equal: deep learning with importance sampling", ICML 2018, equations 2
    and 3; Loshchilov & Hutter, "Online batch selection for faster training of neural networks", 2015 (losses as they were last seen).
    """

    stage = Stage.SAMPLING

    uniform: float = declare.number(
        "u, the share of samples that are drawn whatever their loss", default=0.2, above=0, most=1, off=1.0
    )

    def check(self, selection: Selection) -> None:
        """Refuse mixed samples, of which none has a loss of its own."""
        mixing = [plugin.state_key for plugin in selection.plugins if plugin.stage == Stage.MIXING]
        if mixing:
            raise Refusal(
                f"{self.state_key} looks at the loss of each sample, and {mixing[0]} trains on mixtures of several: leave one of the two out"
            )

    def order(self, labels: Mapping[str, Tensor], epoch: int, generator: torch.Generator) -> Tensor | tuple[Tensor, Tensor]:
        """As the losses before this epoch say, and the factor that makes up for it."""
        samples = len(next(iter(labels.values())))
        p = probabilities(self.losses_before(epoch, samples).cpu(), self.uniform)
        return systematic(p, generator), (1 / (samples * p)).float()

    def transform_losses(
        self, losses: Mapping[str, Tensor], module: Module, batch: Batch, outputs: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Remember the loss of each sample, of all processes; what is minimized stays."""
        self.remember(module, batch, outputs)
        return losses
