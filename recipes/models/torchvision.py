"""Any classification model of torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision import models

from plugins.base import RecipeError
from recipes.models.base import expect_image


class TorchvisionModel(nn.Module):
    """A model of torchvision by its name, with as many outputs as the data needs."""

    def __new__(cls, shape: Sequence[int], outputs: int, name: str | None = None, weights: str | None = None) -> Any:
        """The network itself: there is nothing to wrap.

        Args:
            shape: (channels, height, width); torchvision's stems take 3 channels.
            outputs: number of classes.
            name: such as resnet50 or mobilenet_v3_small.
            weights: pretrained weights to start from, such as DEFAULT or IMAGENET1K_V2; all but the output layer's are used.
        """
        expect_image("torchvision", shape)
        names = models.list_models(module=models)
        if name is None or name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]}?" if near else ", such as resnet50"
            raise RecipeError(f"model.name must be a classification model of torchvision{hint}, got {name!r}")
        if shape[0] != 3:
            raise RecipeError(
                f"model=torchvision takes images with 3 channels, the data has {shape[0]}: use model=resnet18 or cnn"
            )
        further = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        model = models.get_model(name, num_classes=outputs, **further)
        if weights is not None:
            load_pretrained(model, name, weights)
        return model


def load_pretrained(model: nn.Module, name: str, weights: str) -> None:
    """Take the pretrained values of all tensors whose shape fits, that is, of all but the output layer."""
    known = models.get_model_weights(name)
    if weights not in known.__members__:
        raise RecipeError(f"model.weights of {name} must be one of {', '.join(known.__members__)}, got {weights!r}")
    try:
        pretrained = known[weights].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise RecipeError(f"model.weights={weights} could not be downloaded: {error}") from None
    own = model.state_dict()
    fitting = {key: value for key, value in pretrained.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
