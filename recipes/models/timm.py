"""Any classification model of timm."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from plugins.base import RecipeError
from plugins.pretrained import Pretrained
from recipes.config.errors import first_line
from recipes.config.quoting import show
from recipes.models.base import expect_image
from recipes.models.stored import place_of, read
from recipes.models.weights import how_adapted, load_stored, with_inputs, with_size

DEFAULT = (True, "true", "DEFAULT")


class TimmModel(nn.Module):
    """A model of timm by its name, with as many outputs as the data needs and as many input channels as its images have."""

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
            name: such as resnet18 or vit_small_patch16_224.
            weights: to start from: true for timm's default, a name of its weights, such as a1_in1k, a file (.pth, .safetensors), or the folder of a
                run; None: all are drawn at random. What does not fit, such as the output layer, is drawn at random and told.
            load_weights: False where other weights will take their place, as of a run that is resumed or evaluated.

        Raises:
            RecipeError: timm is not there, samples that are no images or do not fit, a name that is none, weights that are not there or of which
                nothing fits.
        """
        expect_image("timm", shape)
        try:
            import timm
        except ModuleNotFoundError:
            raise RecipeError('model=timm needs a package of its own: pip install "lightning-recipes[timm]"') from None
        architecture, tag = timm.models.split_model_name_tag("" if name is None else str(name))
        if not timm.models.is_model(architecture):
            near = difflib.get_close_matches(architecture, timm.list_models(), 1)
            hint = f"; did you mean {near[0]}?" if near else ", such as resnet18"
            raise RecipeError(f"model.name must be a model of timm{hint}, got {name!r}")
        place = None
        if weights not in (None, False, *DEFAULT):
            tag, place = _named(timm, architecture, str(weights), tag, load_weights)
        by_name = weights not in (None, False) and place is None
        full = f"{architecture}.{tag}" if tag else architecture
        if by_name and not timm.models.is_model_pretrained(full):
            raise RecipeError(f"timm has no weights of {full}: leave model.weights out, or give a file or the folder of a run")
        settings = timm.models.get_pretrained_cfg(full)
        size: dict[str, Any] = {"img_size": tuple(shape[1:])} if settings is not None and settings.fixed_input_size else {}
        try:
            model: Any = timm.create_model(
                full, pretrained=by_name and load_weights, num_classes=outputs, in_chans=shape[0], **size
            )
        except Exception as error:  # whatever the library, the network or the hub raises
            if by_name and load_weights:
                raise RecipeError(
                    f"model.weights={show(weights)} of {full} could not be had for images {tuple(shape)}: {first_line(error)}; where there is no "
                    f"network, give a file or the folder of a run, model.weights=FILE"
                ) from None
            raise RecipeError(f"model.name={name} takes no images {tuple(shape)}: {first_line(error)}") from None
        if load_weights and place is not None:
            convert = getattr(sys.modules[timm.models.model_entrypoint(architecture).__module__], "checkpoint_filter_fn", None)
            model.pretrained_weights = load_stored(model, read(place), str(weights), f"model.name={name}", shape, convert)
        elif load_weights and by_name:
            model.pretrained_weights = _told(model.pretrained_cfg, outputs, shape)
        return model


def _named(timm: Any, architecture: str, weights: str, tag: str, needed: bool) -> tuple[str, Any]:
    """The name of timm's weights, or else the place that is meant; where the weights are not needed it may be gone."""
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    wanted = weights.removeprefix(f"{architecture}.")
    if wanted in tags:
        return wanted, None
    if (place := place_of(weights)) is not None or not needed:
        return tag, place or weights
    known = ", ".join(["true", *tags])
    raise RecipeError(f"model.weights of {architecture} must be one of {known}, a file or the folder of a run, got {weights!r}")


def _told(settings: dict[str, Any], outputs: int, shape: Sequence[int]) -> Pretrained:
    """What is known of weights that timm has loaded, all but the output layer if that has another number of classes."""
    name = f"{settings['architecture']}.{settings['tag']}" if settings.get("tag") else settings["architecture"]
    head, classes = settings.get("classifier"), settings["num_classes"]
    head = ", ".join(head) if isinstance(head, (list, tuple)) else head
    but = f", but for {head}, drawn at random: it has {classes:,} classes, the data {outputs}" if classes != outputs else ""
    lines = [f"weights {name}: all tensors are taken{but}"]
    channels, *size = settings["input_size"]
    if channels != shape[0]:
        stem = settings.get("first_conv")
        lines.append(how_adapted(stem if isinstance(stem, str) else "the first layers", channels, shape[0]))
    found = Pretrained(tuple(lines))
    found = with_inputs(found, torch.tensor(settings["mean"]), 1 / torch.tensor(settings["std"]), shape)
    return with_size(found, (size[0], size[1]), shape)
