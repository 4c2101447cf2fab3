"""Importance sampling by loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Refusal, Selection, Stage, declare
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


class ImportanceSampling(Plugin):
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
    on_named_inputs = True
    on_class_maps = True

    uniform: float = declare.number(
        "u, the share of samples that are drawn whatever their loss", default=0.2, above=0, most=1, off=1.0
    )

    def __post_init__(self) -> None:
        self._losses: Tensor | None = None  # of each sample of the split, as it was last seen,
        self._of_epoch: Tensor | None = None  # and as it was before the epoch under way,
        self._epoch = -1

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
        if self._losses is None or len(self._losses) != samples:
            self._losses, self._epoch = torch.full((samples,), torch.inf), -1  # not known
        if epoch != self._epoch or self._of_epoch is None:
            self._of_epoch, self._epoch = self._losses.cpu().clone(), epoch
        p = probabilities(self._of_epoch, self.uniform)
        return systematic(p, generator), (1 / (samples * p)).float()

    def transform_losses(
        self, losses: Mapping[str, Tensor], module: Module, batch: Batch, outputs: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Remember the loss of each sample, of all processes; what is minimized stays."""
        if self._losses is None or batch.samples is None:
            return losses
        with torch.no_grad():
            values = self._of_samples(module, batch, outputs)
        places, values = (_of_all(each) for each in (batch.samples, values.nan_to_num(torch.inf, torch.inf)))
        self._losses = self._losses.to(values.device)
        # of a sample that is drawn twice the larger one, whatever comes first
        self._losses.index_fill_(0, places, -torch.inf)
        self._losses.scatter_reduce_(0, places, values, "amax")
        return losses

    def _of_samples(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Float[Tensor, " samples"]:
        """The loss of each sample, added up over tasks: 0 for what has the weight 0, whose target may be any."""
        targets = dict(batch.targets)
        for task, weight in batch.weight.items():
            if weight.ndim > 1 and task in self.setting.ignored:
                targets[task] = _left_out(targets[task], weight == 0, self.setting.ignored[task])
        found = module.loss_of_samples(outputs, targets)
        for task, weight in batch.weight.items():
            if weight.ndim == 1 and task in found:
                found = {**found, task: found[task].masked_fill(weight == 0, 0.0)}
        return torch.stack([*found.values()]).sum(0).float()

    def state_dict(self) -> dict[str, Any]:
        """The losses, and those by which the epoch under way was drawn."""
        if self._losses is None or self._of_epoch is None:
            return {}
        return {"losses": self._losses, "of_epoch": self._of_epoch, "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        if state_dict:
            self._losses, self._of_epoch = state_dict["losses"].clone(), state_dict["of_epoch"].cpu().clone()
            self._epoch = int(state_dict["epoch"])


def _left_out(target: Tensor, places: Tensor, ignored: int) -> Tensor:
    """The target of class maps with the label that the loss ignores at some places; of softened ones no class is left there."""
    if target.is_floating_point():
        return target.masked_fill(places.unsqueeze(1), 0.0)
    return target.masked_fill(places, ignored)


def _of_all(values: Tensor) -> Tensor:
    """What all processes have, in their order; each has as many."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values.contiguous())
    return torch.cat(gathered)
