"""What the augmentations that mix samples with each other share: partners, shares, targets, and who has the batch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Selection, Stage, Task, class_probabilities, per_label

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def symmetric_beta(alpha: float, samples: int, device: torch.device, generator: torch.Generator) -> Float[Tensor, " {samples}"]:
    """Draw from Beta(α, α), α > 0, in float32 and with a generator, which torch.distributions does not take.

    ½ + ½ √(z / (1 + z)) · sign(cos 2πv) with z = (u^(−1/α) − 1) cos² 2πv and u, v uniform: Student's t with 2α degrees
    of freedom, squeezed onto [0, 1].

    Source: Bailey, "Polar generation of random variates with the t-distribution", Mathematics of Computation 1994.
    """
    u, v = torch.rand(2, samples, device=device, generator=generator, dtype=torch.float32)
    cosine = torch.cos(2 * torch.pi * v)
    z = torch.expm1(-torch.log(u) / alpha) * cosine.square()
    return 0.5 + 0.5 * torch.sign(cosine) / torch.sqrt(1 + 1 / z)


def mix(
    first: Float[Tensor, " samples *shape"], second: Float[Tensor, " samples *shape"], share: Float[Tensor, "samples ..."]
) -> Float[Tensor, " samples *shape"]:
    """share · first + (1 − share) · second, with a share (samples,) for each sample, or one for each place of it; where it is 1, `first` bit for bit."""
    weight = share.to(first.dtype)
    weight = weight.view(*weight.shape, *[1] * (first.ndim - weight.ndim))
    return torch.lerp(second, first, weight)


def mix_target(target: Tensor, partner: Tensor, share: Tensor, task: Task) -> Tensor:
    """The targets of mixed samples: class probabilities for a classification, mixed values for a single number."""
    classes = task.kind == "classification" and task.outputs > 1
    own = class_probabilities(target, task.outputs) if classes else target.to(share.dtype)
    if share.ndim > 1:  # of each place
        share = share.unsqueeze(1)
    return mix(own, own.index_select(0, partner), share)


def paste(of_places: Tensor, partner: Tensor, kept: Bool[Tensor, "samples height width"]) -> Tensor:
    """Class maps (samples, height, width), or probabilities of classes, with those of the partners where nothing is kept."""
    return torch.where(kept if of_places.ndim == 3 else kept.unsqueeze(1), of_places, of_places.index_select(0, partner))


def mix_weight(
    weight: Float[Tensor, " samples *places"], partner: Tensor, share: Float[Tensor, " samples"]
) -> tuple[Float[Tensor, " samples *places"], Float[Tensor, " samples *places"]]:
    """The share of a sample's own label in its target, and its weight, so that a loss that is linear in the target is exact.

    W = λ w + (1 − λ) w′ and Λ = λ w / W: then W · loss(z, Λ t + (1 − Λ) t′) = λ w loss(z, t) + (1 − λ) w′ loss(z, t′).
    """
    mixed = mix(weight, weight.index_select(0, partner), share)
    share = per_label(share, weight)
    return torch.where(mixed > 0, share * weight / mixed, share), mixed


class Mixing(Plugin):
    """An augmentation that mixes each sample with a partner from its batch.

    Where several are selected, each batch gets exactly one of those that act in its step, all equally likely. The choice is a
    function of the step, the same on all ranks and for all parts of a batch; each of them draws it from the same generator, so all
    agree in whatever order they are written. Of class maps, a place that is of one of the two samples has its label, one that is of
    both has a share of either.
    """

    stage = Stage.MIXING
    on_named_inputs = False
    on_class_maps = True

    def __post_init__(self) -> None:
        """Alone until `check` tells otherwise."""
        self.rivals: list[Mixing] = [self]

    def check(self, selection: Selection) -> None:
        """Learn who else mixes."""
        super().check(selection)
        self.rivals = sorted(
            (plugin for plugin in selection.plugins if isinstance(plugin, Mixing)), key=lambda plugin: plugin.option
        )

    def mixed(self, x: Tensor, partners: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Samples mixed with their partners, the share (samples,) that each has kept of itself, and which places it has kept.

        The latter are true in (samples, height, width); None: each place is of both.
        """
        raise NotImplementedError

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Mix inputs and targets, if this batch is ours."""
        if not self._has_this_batch(module):
            return batch
        generator = module.generator(self.option)
        partner = torch.randperm(len(batch), device=batch.x.device, generator=generator)
        x, share, kept = self.mixed(batch.x, batch.x.index_select(0, partner), generator)
        targets, labels, weights = {}, batch.labels, {}
        for task in module.setting.tasks:
            if task.shape and kept is not None:
                pasted = partial(paste, partner=partner, kept=kept)
                targets[task.name] = pasted(batch.targets[task.name])
                labels = {**labels, task.name: pasted(batch.labels[task.name])}
                if task.name in batch.weight:
                    weights[task.name] = pasted(per_label(batch.weight[task.name], batch.labels[task.name]))
                continue
            of_target, weight = share, batch.weight.get(task.name)
            if weight is not None:
                of_target, weights[task.name] = mix_weight(weight, partner, share)
            of_target = share if task.kind == "regression" else of_target
            targets[task.name] = mix_target(batch.targets[task.name], partner, of_target, task)
        return replace(batch, x=x, targets=targets, labels=labels, weight=weights)

    def _has_this_batch(self, module: Module) -> bool:
        acting = [plugin for plugin in self.rivals if plugin.acts(module.progress)]
        if len(acting) <= 1:
            return True
        generator = module.generator("mixing", "cpu", same_on_ranks=True)
        return acting[int(torch.randint(len(acting), (), generator=generator))].option == self.option
