"""Random images whose bright parts are inverted."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.augmentation._colours import solarize
from plugins.augmentation._images import Coloured
from plugins.base import declare


class Solarize(Coloured):
    """Invert what is bright in each image with probability p: x ← 1 − x where x ≥ threshold.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020.
    """

    on_class_maps = True

    p: float = declare.share("probability that an image is solarized", default=0.2, off=0.0)
    threshold: float = declare.share("value from which on numbers are inverted", default=0.5)

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Solarize a random choice of the images."""
        chosen = torch.rand(len(x), device=x.device, generator=generator, dtype=torch.float32) < self.p
        # none reaches a threshold of infinity
        return solarize(x, torch.where(chosen, self.threshold, torch.inf).to(x.dtype))
