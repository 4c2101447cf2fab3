"""AutoAugment (Cubuk et al., 2019)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from plugins.augmentation._images import Coloured
from plugins.augmentation._operations import OPERATIONS, Strengths, operate
from plugins.base import Batch, Module, declare

STRENGTHS = Strengths(10)
POLICIES = {  # pairs of operations, each with its probability in tenths and its level, as published
    "cifar10": (
        "invert 1 0 contrast 2 6; rotate 7 2 translate_x 3 9; sharpness 8 1 sharpness 9 3; shear_y 5 8 translate_y 7 9; "
        "autocontrast 5 0 equalize 9 0; shear_y 2 7 posterize 3 7; saturation 4 3 brightness 6 7; "
        "sharpness 3 9 brightness 7 9; equalize 6 0 equalize 5 0; contrast 6 7 sharpness 6 5; saturation 7 7 translate_x 5 8; "
        "equalize 3 0 autocontrast 4 0; translate_y 4 3 sharpness 2 6; brightness 9 6 saturation 2 8; solarize 5 2 invert 0 0; "
        "equalize 2 0 autocontrast 6 0; equalize 2 0 equalize 6 0; saturation 9 9 equalize 6 0; autocontrast 8 0 solarize 2 8; "
        "brightness 1 3 saturation 7 0; solarize 4 5 autocontrast 9 0; translate_y 9 9 translate_y 7 9; "
        "autocontrast 9 0 solarize 8 3; equalize 8 0 invert 1 0; translate_y 7 9 autocontrast 9 0"
    ),
    "imagenet": (
        "posterize 4 8 rotate 6 9; solarize 6 5 autocontrast 6 0; equalize 8 0 equalize 6 0; posterize 6 7 posterize 6 6; "
        "equalize 4 0 solarize 2 4; equalize 4 0 rotate 8 8; solarize 6 3 equalize 6 0; posterize 8 5 equalize 10 0; "
        "rotate 2 3 solarize 6 8; equalize 6 0 posterize 4 6; rotate 8 8 saturation 4 0; rotate 4 9 equalize 6 0; "
        "equalize 0 0 equalize 8 0; invert 6 0 equalize 10 0; saturation 6 4 contrast 10 8; rotate 8 8 saturation 10 2; "
        "saturation 8 8 solarize 8 7; sharpness 4 7 invert 6 0; shear_x 6 5 equalize 10 0; saturation 4 0 equalize 6 0; "
        "equalize 4 0 solarize 2 4; solarize 6 5 autocontrast 6 0; invert 6 0 equalize 10 0; saturation 6 4 contrast 10 8; "
        "equalize 8 0 equalize 6 0"
    ),
    "svhn": (
        "shear_x 9 4 invert 2 0; shear_y 9 8 invert 7 0; equalize 6 0 solarize 6 6; invert 9 0 equalize 6 0; "
        "equalize 6 0 rotate 9 3; shear_x 9 4 autocontrast 8 0; shear_y 9 8 invert 4 0; shear_y 9 5 solarize 2 6; "
        "invert 9 0 autocontrast 8 0; equalize 6 0 rotate 9 3; shear_x 9 4 solarize 3 3; shear_y 8 8 invert 7 0; "
        "equalize 9 0 translate_y 6 6; invert 9 0 equalize 6 0; contrast 3 3 rotate 8 4; invert 8 0 translate_y 0 2; "
        "shear_y 7 6 solarize 4 8; invert 6 0 rotate 8 4; shear_y 3 7 translate_x 9 3; shear_x 1 6 invert 6 0; "
        "solarize 7 2 translate_y 6 7; shear_y 8 4 invert 8 0; shear_x 7 9 translate_y 8 3; shear_y 8 5 autocontrast 7 0; "
        "shear_x 7 2 invert 1 0"
    ),
}


@cache
def policy_of(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Operations by number, probabilities and levels, each (pairs, 2)."""
    pairs = [pair.split() for pair in POLICIES[name].split("; ")]
    operations, chances, levels = ([pair[start::3] for pair in pairs] for start in range(3))
    numbers = torch.tensor([[OPERATIONS.index(name) for name in pair] for pair in operations])
    tenths, level = (torch.tensor([[int(each) for each in pair] for pair in found]) for found in (chances, levels))
    return numbers, tenths.to(torch.float32) / 10, level


class AutoAugment(Coloured):
    """Do to each image a pair of operations, one after the other, drawn from 25 pairs that were found by search on a data set.

    Each operation of the pair is done with a probability and a strength of its own, with a sign that is drawn. Pairs, probabilities and
    strengths are those of the paper in the form of torchvision's AutoAugment; what comes in from outside is black.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019; lecture B.
    """

    policy: str = declare.choice(*POLICIES, default="cifar10", help="the data set on which pairs were found")

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw a pair for each image, and which of its operations are done."""
        generator, x = module.generator(self.option, "cpu"), batch.x
        numbers, chances, levels = policy_of(self.policy)
        pair = torch.randint(len(numbers), (len(x),), generator=generator)
        for place in range(2):
            done = torch.rand(len(x), generator=generator, dtype=torch.float32) < chances[pair, place]
            signs = 1.0 - 2 * torch.randint(2, (len(x),), generator=generator)
            operations = torch.where(done, numbers[pair, place], 0)
            x = operate(x, operations, STRENGTHS.amounts(operations, levels[pair, place], signs, *x.shape[-2:]))
        return replace(batch, x=x)
