"""Only biases and the head are trained."""

from __future__ import annotations

from torch import nn

from plugins.base import Plugin, Stage
from plugins.depth import depths


class Biases(Plugin):
    """Train the biases and the head of a model that starts from trained weights.

    No gradient is computed for any other parameter, so neither the optimizer nor weight decay moves it.

    Source: Ben Zaken et al., "BitFit", ACL 2022.
    """

    stage = Stage.FINETUNING

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave all other parameters as they are."""
        depth = depths(model)
        for name, parameter in model.named_parameters():
            if depth.get(name, 0) and not name.endswith("bias"):
                parameter.requires_grad_(False)
        return model
