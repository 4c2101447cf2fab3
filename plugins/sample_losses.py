"""The loss of each sample, for what chooses or weighs samples by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.data import Batch
from plugins.module import Module
from plugins.plugin import Option, Plugin

if TYPE_CHECKING:
    from jaxtyping import Float


def losses_of_samples(option: Option, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
    """The loss of each sample, (samples,), added up over tasks: 0 for what has the weight 0, whose target may be any."""
    targets = dict(batch.targets)
    for task, weight in batch.weight.items():
        if weight.ndim > 1 and task in option.setting.ignored:
            targets[task] = _left_out(targets[task], weight == 0, option.setting.ignored[task])
    found = module.loss_of_samples(outputs, targets)
    for task, weight in batch.weight.items():
        if weight.ndim == 1 and task in found:
            found = {**found, task: found[task].masked_fill(weight == 0, 0.0)}
    return torch.stack([*found.values()]).sum(0).float()


class RemembersLosses(Plugin):
    """Remembers the loss that each sample of the split had when it was last trained on, alike on all processes; inf: not known.

    What is decided in an epoch is decided by the losses of before it, which are kept beside, so that a run that goes on decides alike.
    """

    on_named_inputs = True
    on_class_maps = True

    def __post_init__(self) -> None:
        self._losses: Tensor | None = None  # of each sample of the split, as it was last seen,
        self._of_epoch: Tensor | None = None  # and as it was before the epoch under way,
        self._epoch = -1
        self._written: Tensor | None = None  # whether it was seen in the step under way already,
        self._step = -1

    def losses_before(self, epoch: int, samples: int) -> Float[Tensor, " {samples}"]:
        """The losses of all samples before an epoch; asked for in each epoch before anything is remembered of it."""
        if self._losses is None or len(self._losses) != samples:
            self._losses, self._epoch, self._written = torch.full((samples,), torch.inf), -1, None
        if epoch != self._epoch or self._of_epoch is None:
            self._of_epoch, self._epoch = self._losses.clone(), epoch
        return self._of_epoch

    def remember(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Take the losses of the first pass of a step down, those of all processes; others may be of weights that were moved for it."""
        remembered = f"{self.state_key} remembered"
        if self._losses is None or batch.samples is None or remembered in batch.extra:
            return
        batch.extra[remembered] = True
        with torch.no_grad():
            values = losses_of_samples(self, module, batch, outputs)
        places, values = (_of_all(each) for each in (batch.samples, values.nan_to_num(torch.inf, torch.inf)))
        self._losses = self._losses.to(values.device)
        if self._written is None or self._step != module.progress[0]:
            self._step = module.progress[0]
            self._written = torch.zeros(len(self._losses), dtype=torch.bool, device=values.device)
        # of a sample that is drawn twice in a step the larger one, whatever part or process comes first
        self._losses.index_copy_(0, places, self._losses[places].where(self._written[places], -torch.inf))
        self._losses.scatter_reduce_(0, places, values, "amax")
        self._written.index_fill_(0, places, True)

    def state_dict(self) -> dict[str, Any]:
        """The losses, and those by which the epoch under way is decided."""
        if self._losses is None or self._of_epoch is None:
            return {}
        return {"losses": self._losses, "of_epoch": self._of_epoch, "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        if state_dict:
            self._losses, self._of_epoch = state_dict["losses"].clone(), state_dict["of_epoch"].clone()
            self._epoch, self._written = int(state_dict["epoch"]), None


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
