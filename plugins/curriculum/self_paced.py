"""Self-paced learning (Kumar et al., 2010)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from plugins.base import Batch, Module, Refusal, Selection, Stage, declare
from plugins.sample_losses import RemembersLosses

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def first_threshold(losses: Float[Tensor, " samples"], share: float) -> Float[Tensor, ""]:
    """λ below which the ⌈share · n⌉ smallest of n losses lie: the next larger one, infinite where there is none."""
    count = max(1, math.ceil(share * len(losses) - 1e-9))
    return losses.kthvalue(count + 1).values if count < len(losses) else losses.new_tensor(torch.inf)


def is_easy(losses: Float[Tensor, " samples"], threshold: Float[Tensor, ""]) -> Bool[Tensor, " samples"]:
    """v = 1[l < λ]; a loss that is not known counts."""
    return (losses < threshold) | ~losses.isfinite()


def grown(growth: float, epochs: int) -> float:
    """μ^n after n epochs; infinite where no float is that large."""
    try:
        return growth**epochs
    except OverflowError:
        return math.inf


class SelfPaced(RemembersLosses):
    """Learn from easy samples first, and from harder ones with each epoch.

    J = Σᵢ vᵢ bᵢ Jᵢ / Σᵢ vᵢ bᵢ over the samples of a step, vᵢ = 1[lᵢ < λ], with the loss lᵢ that sample i had when it was last trained on before the
    epoch, added up over tasks, and its weight bᵢ. λ is first such that `initial_share` of the samples with a loss above 0 count, and those
    without, and grows by the factor μ with each epoch; as losses fall, soon all count. Before the first epoch no loss is known, and all
    count. Losses are those of the steps, shared by all processes, so no pass is added and any number of devices decides alike; samples that
    do not count pass through the model, to know when they will. What is logged as loss counts all. Logged: `threshold`, λ, and `share`, how
    many of the samples of a step count.

    Raises:
        RecipeError: a loss that returns one number for all samples; a loader that does not tell which sample is which.
        Refusal: samples are mixed with each other; what draws, or chooses, samples by loss.

    Source: Kumar, Packer & Koller, "Self-paced learning for latent variable models", NeurIPS 2010, algorithm 1.
    """

    stage = Stage.COUNTING
    tells_samples_apart = True
    refuses = {
        "sampling/importance": "one draws the samples of large loss, the other counts those of small loss; leave one of the two out"
    }

    initial_share: float = declare.number("share of the samples that count at first", default=0.5, above=0, most=1, off=1.0)
    growth: float = declare.number("μ, factor of λ with each epoch", default=1.3, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._threshold: Tensor | None = None  # the first one,
        self._since = 0  # of this epoch
        self._samples = 0

    def check(self, selection: Selection) -> None:
        """Refuse mixed samples, of which none has a loss of its own."""
        mixing = [plugin.state_key for plugin in selection.plugins if plugin.stage == Stage.MIXING]
        if mixing:
            raise Refusal(
                f"{self.state_key} looks at the loss of each sample, and {mixing[0]} trains on mixtures of several: leave one of the two out"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Learn how many samples there are."""
        self._samples = len(trainer.train_dataloader.split)  # type: ignore[union-attr]

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Have easy samples count, and no others."""
        kept = {**batch.extra, self.state_key: batch.weight}
        if batch.samples is None or not self._samples:
            return replace(batch, extra=kept)
        if batch.epoch != self._epoch or self._of_epoch is None:
            self._begin(batch.epoch)
        assert self._of_epoch is not None
        self._of_epoch = self._of_epoch.to(batch.samples.device)
        if self._threshold is None:
            return replace(batch, extra=kept)
        self._threshold = self._threshold.to(batch.samples.device)
        threshold = self._threshold * grown(self.growth, batch.epoch - self._since)
        counts = is_easy(self._of_epoch[batch.samples], threshold).float()
        self.record(module, "threshold", threshold)
        self.record(module, "share", counts.mean())
        weight = batch.weight
        for task in batch.labels:
            weight = replace(batch, weight=weight).weighted(task, counts)
        return replace(batch, weight=weight, extra=kept)

    def _begin(self, epoch: int) -> None:
        losses = self.losses_before(epoch, self._samples)
        known = losses[losses.isfinite() & (losses > 0)]
        if self._threshold is None and len(known):
            self._threshold, self._since = first_threshold(known, self.initial_share), epoch

    def transform_losses(
        self, losses: Mapping[str, Tensor], module: Module, batch: Batch, outputs: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Remember the loss of each sample, those that do not count too; what is minimized stays."""
        self.remember(module, replace(batch, weight=batch.extra[self.state_key]), outputs)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """The losses, and the first threshold with its epoch."""
        return {**super().state_dict(), "threshold": self._threshold, "since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._threshold, self._since = state_dict["threshold"], int(state_dict["since"])
        super().load_state_dict({name: value for name, value in state_dict.items() if name in ("losses", "of_epoch", "epoch")})
