"""Any classification model of torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from plugins.base import RecipeError
from plugins.pretrained import Pretrained
from recipes.config.errors import first_line
from recipes.models.base import expect_image
from recipes.models.stored import place_of, read
from recipes.models.weights import first_convolution, fit, load_stored, with_inputs, with_size

DEFAULT = "DEFAULT"
INCEPTIONS = ("googlenet", "inception_v3")  # have further outputs in training; their weights expect inputs in [-1, 1]


class TorchvisionModel(nn.Module):
    """A model of torchvision by its name, with as many outputs as the data needs."""

    def __new__(
        cls,
        shape: Sequence[int],
        outputs: int,
        name: str | None = None,
        weights: str | bool | None = None,
        load_weights: bool = True,
    ) -> Any:
        """The network itself: there is nothing to wrap.

        Args:
            shape: (channels, height, width).
            outputs: number of classes.
            name: such as resnet50 or mobilenet_v3_small.
            weights: to start from: a name of torchvision's, such as DEFAULT or IMAGENET1K_V2, true for DEFAULT, a file (.pth, .safetensors), or the
                folder of a run; None: all are drawn at random. What does not fit, such as the output layer, is drawn at random and told.
            load_weights: False where other weights will take their place, as of a run that is resumed or evaluated.

        Raises:
            RecipeError: samples that are no images, a name that is none, weights that are not there or of which nothing fits.
        """
        expect_image("torchvision", shape)
        names = models.list_models(module=models)
        if name is None or name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]}?" if near else ", such as resnet50"
            raise RecipeError(f"model.name must be a classification model of torchvision{hint}, got {name!r}")
        model = make(name, shape, outputs)
        if weights not in (None, False) and load_weights:
            model.pretrained_weights = load(model, name, DEFAULT if weights is True else str(weights), shape)
        return model


def make(name: str, shape: Sequence[int], outputs: int) -> Any:
    """The network: its first convolution takes the channels that the images have, a transformer their size."""
    further: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in INCEPTIONS else {}
    if name.startswith(("vit_", "maxvit_")):
        if shape[1] != shape[2]:
            raise RecipeError(f"model.name={name} takes square images, the data has {shape[1]} × {shape[2]}")
        further |= {"image_size": shape[1]} if name.startswith("vit_") else {"input_size": tuple(shape[1:])}
    try:
        model = models.get_model(name, num_classes=outputs, **further)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise RecipeError(f"model.name={name} takes no images of {shape[1]} × {shape[2]}: {first_line(error)}") from None
    found = first_convolution(model)
    if shape[0] != 3 and found is not None:
        place, old = found
        form: dict[str, Any] = {name: getattr(old, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        new = nn.Conv2d(shape[0], old.out_channels, bias=old.bias is not None, **form)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        parent, _, own = place.rpartition(".")
        setattr(model.get_submodule(parent), own, new)
    return model


def load(model: nn.Module, name: str, weights: str, shape: Sequence[int]) -> Pretrained:
    """Give a network weights by name, from a file or from a run folder, and tell what was taken."""
    known, called = models.get_model_weights(name), f"model.name={name}"
    convert = _positions if name.startswith("vit_") else None
    if weights in known.__members__:
        chosen = known[weights]
        try:
            tensors = chosen.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise RecipeError(
                f"model.weights={weights} could not be downloaded: {first_line(error)}; where there is no network, give a file or the "
                f"folder of a run, model.weights=FILE"
            ) from None
        tensors = convert(dict(tensors), model) if convert else tensors
        preset = chosen.transforms()
        mean, deviation = ([0.5] * 3, [0.5] * 3) if name in INCEPTIONS else (preset.mean, preset.std)
        found = Pretrained(fit(model, _without_aids(tensors, name), chosen.name, called))
        found = with_inputs(found, torch.tensor(mean), 1 / torch.tensor(deviation), shape)
        return with_size(found, (preset.crop_size[0],) * 2, shape)
    place = place_of(weights)
    if place is None:
        raise RecipeError(
            f"model.weights of {name} must be one of {', '.join(known.__members__)}, a file or the folder of a run, got {weights!r}"
        )
    return load_stored(model, read(place), weights, called, shape, convert)


def _without_aids(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors without those of the outputs that Inception has in training only."""
    return {key: value for key, value in tensors.items() if name not in INCEPTIONS or not key.lower().startswith("aux")}


def _positions(tensors: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The tensors of a vision transformer for images of the model's size: embeddings of positions between those there are."""
    key = "encoder.pos_embedding"
    mine, there = model.encoder.pos_embedding, tensors.get(key)
    if there is None or there.shape == mine.shape or there.shape[2:] != mine.shape[2:]:
        return tensors
    sides = [round((each.shape[1] - 1) ** 0.5) for each in (there, mine)]
    grid = there[:, 1:].transpose(1, 2).reshape(1, -1, sides[0], sides[0])
    between = nn.functional.interpolate(grid, size=(sides[1],) * 2, mode="bicubic", align_corners=True)
    return {**tensors, key: torch.cat([there[:, :1], between.flatten(2).transpose(1, 2)], 1)}
