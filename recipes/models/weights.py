"""Weights from a file or a run folder: read without executing anything, and fitted to a model as far as names and shapes agree."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plugins.base import RecipeError
from plugins.pretrained import Pretrained
from recipes.config.errors import first_line
from recipes.config.places import check_files
from recipes.config.run_files import BEST, CHECKPOINTS

SAFETENSORS = ".safetensors"
ENDINGS = (".pth", ".pt", ".ckpt", ".bin", SAFETENSORS)
NAMED = ("state_dict_ema", "state_dict", "model_state_dict", "model")  # below which trainings keep the weights
COUNTS = "num_batches_tracked"  # of a norm layer: no weight, and older files have none
MOST = 4  # names in a line


@dataclass(frozen=True)
class Stored:
    """Weights as they lie somewhere.

    Attributes:
        place: the file.
        tensors: by name.
        of_run: whether a run of this project has saved them.
    """

    place: Path
    tensors: dict[str, Tensor]
    of_run: bool

    def named_as(self, names: Iterable[str]) -> tuple[dict[str, Tensor], str]:
        """The tensors without what stands in front of a model's own `names`, such as `module.`, and that prefix."""
        known, votes = set(names), Counter[str]()
        for name in self.tensors:
            parts = name.split(".")
            votes.update(".".join([*parts[:cut], ""]) for cut in range(len(parts)) if ".".join(parts[cut:]) in known)
        prefix = max(votes, key=lambda each: (votes[each], -len(each)), default="")
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}, prefix

    def inputs(self, prefix: str) -> tuple[Tensor, Tensor] | None:
        """Shift and scale of the inputs that a run has trained its weights with; None where that is not known."""
        parts = prefix.split(".")[:-1]
        for cut in range(len(parts)):
            front = "".join(f"{part}." for part in parts[:cut])
            if {f"{front}shift", f"{front}scale"} <= self.tensors.keys():
                return self.tensors[f"{front}shift"], self.tensors[f"{front}scale"]
        return (torch.zeros(1), torch.ones(1)) if self.of_run and parts == ["model"] else None


def place_of(weights: str) -> Path | None:
    """The file or folder that `model.weights` means; None where it can be no path, but the name of weights."""
    path = Path(weights)
    return path if "/" in weights or path.suffix.lower() in ENDINGS or path.exists() else None


def read(place: Path) -> Stored:
    """The weights in a file, or of the best checkpoint in a run folder.

    Raises:
        RecipeError: there are none, or they cannot be read without executing something.
    """
    path = place
    if place.is_dir():
        path = place / CHECKPOINTS / BEST
        if not path.exists():
            raise RecipeError(
                f"model.weights={place} is a folder without {CHECKPOINTS}/{BEST}: name the folder of a run, or a file"
            )
        check_files(place)
    if not path.is_file():
        raise RecipeError(f"model.weights={place}: there is no such file or folder")
    try:
        state = _read_safetensors(path) if path.suffix.lower() == SAFETENSORS else _read_torch(path)
    except RecipeError:
        raise
    except (Exception, RecursionError) as error:
        raise RecipeError(
            f"model.weights={path} cannot be read: expected a state_dict of tensors, saved by torch.save or safetensors: "
            f"{first_line(error)}"
        ) from None
    of_run = isinstance(state, Mapping) and "recipe" in state and "state_dict" in state
    for name in NAMED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    plain = isinstance(state, Mapping)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)} if plain else {}
    if not tensors:
        raise RecipeError(f"model.weights={path} holds no weights: expected a state_dict, tensors by name")
    return Stored(path, tensors, of_run)


def _read_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("its parts are compressed, torch's never are")
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise RecipeError(f"model.weights={path} needs a package of its own: pip install safetensors") from None
    return load_file(path)


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
    found = Pretrained(fit(model, tensors, source, called))
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
