"""Any classification model of torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision import models

from plugins.base import RecipeError
from recipes.models.base import expect_image


class Torchvision(nn.Module):
    """A model of torchvision by its name, with as many outputs as the data needs.

    Args:
        shape: (channels, height, width); torchvision's stems take 3 channels.
        outputs: number of classes.
        name: such as resnet50 or mobilenet_v3_small.
    """

    def __new__(cls, shape: Sequence[int], outputs: int, name: str | None = None) -> Any:
        """The network itself: there is nothing to wrap."""
        expect_image("torchvision", shape)
        names = models.list_models(module=models)
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]}?" if near else ", such as resnet50"
            raise RecipeError(f"model.name must be a classification model of torchvision{hint}, got {name!r}")
        if shape[0] != 3:
            raise RecipeError(
                f"model=torchvision takes images with 3 channels, the data has {shape[0]}: use model=resnet18 or cnn"
            )
        return models.get_model(name, num_classes=outputs)
