"""AugMix (Hendrycks et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import Coloured
from plugins.augmentation._operations import BLENDING, OPERATIONS, Strengths, operate
from plugins.base import Batch, Module, Refusal, Selection, Setting, Stage, declare
from plugins.regularizer._predictions import mean_that_counts

if TYPE_CHECKING:
    from jaxtyping import Float

LEVELS = 10
DEEPEST = 3  # operations in a chain, where their number is drawn
STRENGTHS = Strengths(LEVELS, side=1 / 3, bits=(4, 0))
FEW = [name for name in OPERATIONS if name not in (*BLENDING, "identity", "invert", "hue")]


def divergence(logits: Float[Tensor, "views samples classes"]) -> Float[Tensor, " samples"]:
    """Jensen and Shannon's, of p = softmax(z): the mean over views of KL(pᵢ ‖ M), M the mean of all pᵢ."""
    own = logits.log_softmax(2)
    middle = own.logsumexp(0) - math.log(len(own))
    return (own.exp() * (own - middle)).sum(2).mean(0)


def combine(
    x: Float[Tensor, " samples *shape"],
    chains: Float[Tensor, " chains samples *shape"],
    weights: Float[Tensor, "chains samples"],
    kept: Float[Tensor, " samples"],
) -> Float[Tensor, " samples *shape"]:
    """m x + (1 − m) Σ wⱼ chainⱼ with weights w (chains, samples) and what is kept of x, m (samples,)."""
    places = [1] * (x.ndim - 1)
    mixed = (chains * weights.to(x.dtype).view(*weights.shape, *places)).sum(0)
    return torch.lerp(mixed, x, kept.to(x.dtype).view(-1, *places))


class AugMix(Coloured):
    """Mix each image with chains of operations on it; with `jsd` two such views of it are to be classified like itself.

    x' = m x + (1 − m) Σⱼ wⱼ chainⱼ(x), w ~ Dirichlet(1, …, 1) over `width` chains, m ~ Beta(1, 1); a chain is `depth` operations with
    strengths and signs, all drawn for each image. Operations are those of torchvision's AugMix: shear, translation, rotation, posterize,
    solarize, autocontrast, equalize, with `all_ops` brightness, saturation, contrast and sharpness, too.

    Without `jsd` x' takes the place of x. With it the model is trained on x, and J = J(x) + weight · JS(p(x), p(x'), p(x'')), a mean over
    samples for each classification, JS = (KL(p ‖ M) + KL(p' ‖ M) + KL(p'' ‖ M)) / 3, M = (p + p' + p'') / 3; what the loss ignores
    counts as 0. Both views go through the model in one more pass, which makes a step about three times as long and counts in running
    statistics. They are made of what other augmentations and mixing have made.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1]; with `jsd` no classification, or a loss whose outputs
            are no logits.

    Source: Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020.
    """

    stage = Stage.VIEWS
    on_shards = True

    width: int = declare.count("chains that are mixed", default=3)
    depth: int | None = declare.count("operations in a chain", default=None, null="1 to 3, drawn for each chain")
    severity: int = declare.count("strengths are drawn from so many of 10, the weakest first", default=3, most=LEVELS)
    all_ops: bool = declare.flag("brightness, saturation, contrast and sharpness, too", default=False)
    jsd: bool = declare.flag("train on images as they are, and have two views classified alike", default=True)
    weight: float = declare.number("factor of the divergence, where jsd is true", default=12.0, least=0, off=0.0)

    @property
    def is_off(self) -> bool:
        """Whether the divergence counts for nothing, and images stay as they are."""
        return self.jsd and super().is_off

    def prepare(self, setting: Setting) -> None:
        """List the operations."""
        super().prepare(setting)
        self._numbers = torch.tensor([OPERATIONS.index(name) for name in (*FEW, *(BLENDING if self.all_ops else ()))])

    def check(self, selection: Selection) -> None:
        """Refuse to compare probabilities where there are none."""
        super().check(selection)
        if self.jsd and not any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal(
                f"{self.state_key} compares probabilities of classes, and the data has none: type augmentation.augmix.jsd=false, or leave it out"
            )

    @property
    def needs_logits(self) -> bool:  # type: ignore[override]
        """Whether probabilities are made of outputs."""
        return self.jsd

    def view(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Images mixed with chains of operations, from draws on the CPU."""
        samples, chains = len(x), x.repeat(self.width, 1, 1, 1)
        depth = torch.randint(1, DEEPEST + 1, (len(chains),), generator=generator)
        for place in range(self.depth or DEEPEST):
            operations = self._numbers[torch.randint(len(self._numbers), (len(chains),), generator=generator)]
            level = torch.randint(self.severity, (len(chains),), generator=generator)
            signs = 1.0 - 2 * torch.randint(2, (len(chains),), generator=generator)
            if self.depth is None:
                operations = torch.where(place < depth, operations, 0)
            chains = operate(chains, operations, STRENGTHS.amounts(operations, level, signs, *x.shape[-2:]), "bilinear")
        drawn = (
            -torch.rand(self.width, samples, generator=generator, dtype=torch.float32).clamp_min(1e-30).log()
        )  # in proportion to its sum: Dirichlet
        kept = torch.rand(samples, generator=generator, dtype=torch.float32)
        weights, kept = (each.to(x.device, non_blocking=True) for each in (drawn / drawn.sum(0), kept))
        return combine(x, chains.unflatten(0, (self.width, samples)), weights, kept)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Make a view of each image, or two beside it."""
        generator = module.generator(self.option, "cpu")
        if not self.jsd:
            return replace(batch, x=self.view(batch.x, generator))
        views = torch.cat([self.view(batch.x, generator) for _ in range(2)])
        return replace(batch, extra={**batch.extra, self.state_key: views})

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The divergence of the predictions for the images and their views."""
        if (views := batch.extra.get(self.state_key)) is None:
            return None
        of_views, found = module.outputs(views), []
        for task in module.setting.tasks:
            if task.kind == "classification":
                apart = divergence(torch.stack([outputs[task.name], *of_views[task.name].chunk(2)]).float())
                found.append(mean_that_counts(apart, batch, task.name))
        total = torch.stack(found).sum()
        self.record(module, "divergence", total)
        return self.weight * total
