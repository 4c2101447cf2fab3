"""What the augmentations that mix samples with each other share: partners, shares, targets, and who has the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Selection, Stage, Task, class_probabilities

if TYPE_CHECKING:
    from jaxtyping import Float


def symmetric_beta(alpha: float, samples: int, device: torch.device, generator: torch.Generator) -> Float[Tensor, " {samples}"]:
    """Draw from Beta(α, α), α > 0, in float32 and with a generator, which torch.distributions does not take.

    ½ + ½ √(z / (1 + z)) · sign(cos 2πv) with z = (u^(−1/α) − 1) cos² 2πv and u, v uniform: Student's t with 2α degrees
    of freedom, squeezed onto [0, 1].

    Source: Bailey, "Polar generation of random variates with the t-distribution", Mathematics of Computation 1994.
    """
    u, v = torch.rand(2, samples, device=device, generator=generator)
    cosine = torch.cos(2 * torch.pi * v)
    z = torch.expm1(-torch.log(u) / alpha) * cosine.square()
    return 0.5 + 0.5 * torch.sign(cosine) / torch.sqrt(1 + 1 / z)


def mix(
    first: Float[Tensor, " samples *shape"], second: Float[Tensor, " samples *shape"], share: Float[Tensor, " samples"]
) -> Float[Tensor, " samples *shape"]:
    """share · first + (1 − share) · second, with a share (samples,) for each sample; where it is 1, `first` bit for bit."""
    weight = share.to(first.dtype).view(-1, *[1] * (first.ndim - 1))
    return torch.lerp(second, first, weight)


def mix_target(target: Tensor, partner: Tensor, share: Tensor, task: Task) -> Tensor:
    """The targets of mixed samples: class probabilities for a classification, mixed values for a single number."""
    classes = task.kind == "classification" and task.outputs > 1
    own = class_probabilities(target, task.outputs) if classes else target.to(share.dtype)
    return mix(own, own.index_select(0, partner), share)


def mix_weight(
    weight: Float[Tensor, " samples"], partner: Tensor, share: Float[Tensor, " samples"]
) -> tuple[Float[Tensor, " samples"], Float[Tensor, " samples"]]:
    """The share of a sample's own label in its target, and its weight, so that a loss that is linear in the target is exact.

    W = λ w + (1 − λ) w′ and Λ = λ w / W: then W · loss(z, Λ t + (1 − Λ) t′) = λ w loss(z, t) + (1 − λ) w′ loss(z, t′).
    """
    mixed = mix(weight, weight.index_select(0, partner), share)
    return torch.where(mixed > 0, share * weight / mixed, share), mixed


class Mixing(Plugin):
    """An augmentation that mixes each sample with a partner from its batch.

    Where several are selected, each batch gets exactly one of them, all equally likely. The choice is a function of the
    step, drawn by each of them from the same generator, so all agree in whatever order they are written.
    """

    stage = Stage.MIXING

    def __post_init__(self) -> None:
        """Alone until `check` tells otherwise."""
        self.rivals = [self.option]

    def check(self, selection: Selection) -> None:
        """Learn who else mixes."""
        super().check(selection)
        self.rivals = sorted(plugin.option for plugin in selection.plugins if isinstance(plugin, Mixing))

    def mixed(self, x: Tensor, partners: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Samples mixed with their partners, and the share (samples,) that each has kept of itself."""
        raise NotImplementedError

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Mix inputs and targets, if this batch is ours."""
        if not self._has_this_batch(module):
            return batch
        generator = module.generator(self.option)
        partner = torch.randperm(len(batch), device=batch.x.device, generator=generator)
        x, share = self.mixed(batch.x, batch.x.index_select(0, partner), generator)
        targets, weights = {}, {}
        for task in module.setting.tasks:
            of_target, weight = share, batch.weight.get(task.name)
            if weight is not None:
                of_target, weights[task.name] = mix_weight(weight, partner, share)
            of_target = share if task.kind == "regression" else of_target
            targets[task.name] = mix_target(batch.targets[task.name], partner, of_target, task)
        return replace(batch, x=x, targets=targets, weight=weights)

    def _has_this_batch(self, module: Module) -> bool:
        if len(self.rivals) == 1:
            return True
        generator = module.generator("mixing", "cpu")
        return self.rivals[int(torch.randint(len(self.rivals), (), generator=generator))] == self.option
