"""Repeated augmentation (Hoffer et al., 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Plugin, Selection, Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Int

SAME = (Stage.SIZE, Stage.TARGETS, Stage.SELECTION)  # among the stages that augment, what treats copies alike


def repeated_order(samples: int, copies: int, generator: torch.Generator) -> Int[Tensor, " {samples}"]:
    """As many indices as samples: the first of a random order, each so often one behind the other."""
    return torch.randperm(samples, generator=generator).repeat_interleave(copies)[:samples]


class RepeatedAugmentation(Plugin):
    """Have each step see copies of a sample, each augmented in its own way: gradients vary less, from as many samples and updates.

    An epoch takes 1/r of the training samples, drawn anew for each epoch, r times each; copies follow each other, so they stand in one step
    where the number of samples of a step is a multiple of r, else those of one sample a step are cut in two. Steps have as many samples and
    an epoch has as many steps as without: for each sample to be seen as many times as steps are made of it, train r times as long.
    The order is a function of seed and epoch, the same on any number of devices. What is drawn is drawn for each copy.

    Raises:
        Refusal: mirroring by the sample's number, which is one for all copies; another option that gives an order.

    Source: Hoffer et al., "Augment your batch: improving generalization through instance repetition", CVPR 2020; Touvron et al., "Training
    data-efficient image transformers & distillation through attention", ICML 2021 (the order).
    """

    stage = Stage.SAMPLING
    on_class_maps = True
    refuses = {
        "augmentation/alternating_flip": "it mirrors all copies of a sample alike; type +augmentation=horizontal_flip in its place"
    }

    copies: int

    repeats: int = declare.count(  # of a batch, in a row: a hook's name
        "copies of each sample in a step", default=2, off=1, kept="copies"
    )

    def check(self, selection: Selection) -> None:
        """Tell where copies are alike."""
        augmenting = [
            plugin for plugin in selection.plugins if Stage.GEOMETRY <= plugin.stage <= Stage.VIEWS and plugin.stage not in SAME
        ]
        self.remarks = [] if augmenting else ["nothing is augmented: the copies of a sample are alike"]

    def order(self, labels: Mapping[str, Tensor], epoch: int, generator: torch.Generator) -> Tensor:
        """Some of the samples, several times each."""
        return repeated_order(len(next(iter(labels.values()))), self.copies, generator)
