"""Weights from a file or a run folder, fitted to a model as far as names and shapes agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from plugins.base import RecipeError
from plugins.pretrained import Pretrained
from recipes.models.stored import Stored

COUNTS = "num_batches_tracked"  # of a norm layer: no weight, and older files have none
MOST = 4  # names in a line


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """The convolution that sees the images, with its name: the first one, where it is not grouped."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            return (name, layer) if layer.groups == 1 else None
    return None


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight (out, in, height, width) for images of so many channels.

    For one channel the sum over those there are: a grey image gives what it gives in colours. Else they are repeated, times
    in / channels, so that outputs keep their size. Source: timm, `adapt_input_conv`.
    """
    there = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // there), 1, 1)[:, :channels]
    return repeated * (there / channels)


def how_adapted(name: str, there: int, channels: int) -> str:
    """What :func:`for_channels` has done, in a line."""
    done = "summed over them" if channels == 1 else f"repeated for each, times {there}/{channels}"
    return f"the weights are for images of {there} channels, the data has {channels}: those of {name} are {done}"


def fit(model: nn.Module, tensors: Mapping[str, Tensor], source: str, called: str) -> tuple[str, ...]:
    """Take all tensors of which name and shape agree; tells what was taken, what was not and why, a line each.

    Args:
        model: is changed in place.
        tensors: by the names that the model has.
        source: where they are from, as it was typed.
        called: the model, as it was typed.

    Raises:
        RecipeError: nothing fits.
    """
    own = model.state_dict()
    stem = first_convolution(model)
    taken: dict[str, Tensor] = {}
    misshaped, missing, adapted = [], [], []
    for name, mine in own.items():
        value = tensors.get(name)
        if value is None:
            missing += [] if name.endswith(COUNTS) else [name]
        elif value.shape == mine.shape:
            taken[name] = value
        elif stem and name == f"{stem[0]}.weight" and _but_for_channels(value, mine):
            taken[name] = for_channels(value, mine.shape[1])
            adapted.append(how_adapted(name, value.shape[1], mine.shape[1]))
        else:
            misshaped.append(f"{name} {_sizes(value)} where the model has {_sizes(mine)}")
    weights = {name for name, value in own.items() if value.is_floating_point()}
    if not taken.keys() & weights:
        raise RecipeError(
            f"model.weights={source} has nothing that fits {called}: it has {_listed([f'{n} {_sizes(v)}' for n, v in tensors.items()])}; "
            f"the model has {_listed([f'{n} {_sizes(v)}' for n, v in own.items()])}"
        )
    model.load_state_dict(taken, strict=False)
    left = [name for name in tensors if name not in own]
    return (
        f"weights {source}: {len(taken.keys() & weights)} of {len(weights)} tensors of {called} are taken",
        *adapted,
        *([f"of another shape, so drawn at random: {_listed(misshaped)}"] if misshaped else []),
        *([f"not among the weights, so drawn at random: {_listed(missing)}"] if missing else []),
        *([f"weights without a place in the model: {_listed(left)}"] if left else []),
    )


def load_stored(
    model: nn.Module, stored: Stored, source: str, called: str, shape: Sequence[int], convert: Any = None
) -> Pretrained:
    """Give a model stored weights, and tell what is known of them.

    Args:
        model: is changed in place.
        stored: the weights.
        source: as it was typed.
        called: the model, as it was typed.
        shape: of a sample, (channels, height, width).
        convert: of older names and other sizes: a function of (tensors, model); None: there is nothing to convert.
    """
    tensors, prefix = stored.named_as(model.state_dict())
    if convert is not None:
        try:
            tensors = convert(dict(tensors), model)
        except Exception:  # made for the library's own files: what is left as it was fits, or is told
            tensors = dict(tensors)
    found = Pretrained(fit(model, tensors, source, called), kept=stored.kept)
    inputs = stored.inputs(prefix)
    return found if inputs is None else with_inputs(found, *inputs, shape)


def with_inputs(found: Pretrained, shift: Tensor, scale: Tensor, shape: Sequence[int]) -> Pretrained:
    """What is known of weights, with the inputs they expect; of images of another number of channels the mean over theirs."""
    if shift.ndim == scale.ndim == 3 and tuple(shift.shape) == tuple(scale.shape) == tuple(shape):
        return replace(found, shift=shift, scale=scale)  # statistics of each pixel
    if max(shift.numel(), scale.numel()) > max(shift.shape[0], scale.shape[0]):
        return found  # of pixels of images of another size
    channels = shape[0]
    means, scales = (
        part.flatten() if len(part.flatten()) == channels else part.mean().expand(channels) for part in (shift, scale)
    )
    return replace(found, shift=means.reshape(-1, 1, 1).clone(), scale=scales.reshape(-1, 1, 1).clone())


def with_size(found: Pretrained, size: tuple[int, int], shape: Sequence[int]) -> Pretrained:
    """What is known of weights, with the size of the images they were trained on, told where the data has another."""
    if tuple(shape[1:]) == size:
        return replace(found, size=size)
    line = (
        f"the weights were trained on images of {size[0]} × {size[1]}, the data has {shape[1]} × {shape[2]}, and nothing resizes "
        f"them: data.size={size[0]} does so where data=image_folder"
    )
    return replace(found, size=size, remarks=(*found.remarks, line))


def _but_for_channels(value: Tensor, mine: Tensor) -> bool:
    return value.ndim == mine.ndim == 4 and value.shape[0] == mine.shape[0] and value.shape[2:] == mine.shape[2:]


def _sizes(value: Tensor) -> str:
    return f"({', '.join(map(str, value.shape))})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
