"""Random images without colours."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.augmentation._colours import grayscale
from plugins.augmentation._images import Coloured
from plugins.base import Selection, declare


class Grayscale(Coloured):
    """Take the colours out of each image with probability p.

    Each channel becomes 0.2989 R + 0.587 G + 0.114 B. Images of one channel stay as they are, and the run says so.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    """

    on_class_maps = True

    p: float = declare.share("probability that an image loses its colours", default=0.2, off=0.0)

    def check(self, selection: Selection) -> None:
        """Say where there is nothing to take away."""
        super().check(selection)
        if selection.setting.shape[0] == 1:
            self.remarks = ["the images have one channel, so it changes nothing"]

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Grey images in place of a random choice."""
        chosen = torch.rand(len(x), device=x.device, generator=generator, dtype=torch.float32) < self.p
        return torch.where(chosen.view(-1, 1, 1, 1), grayscale(x), x)
