"""Weights as they lie somewhere, in a file or in the folder of a run. Nothing in them is trusted, or executed."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plugins.base import RecipeError
from recipes.config.errors import first_line
from recipes.config.places import check_files, open_file
from recipes.config.run_files import CONFIG
from recipes.store.folder import best_checkpoint

SAFETENSORS = ".safetensors"
ENDINGS = (".pth", ".pt", ".ckpt", ".bin", SAFETENSORS)
NAMED = ("state_dict_ema", "state_dict", "model_state_dict", "model")  # below which trainings keep the weights


@dataclass(frozen=True)
class Stored:
    """Weights as they lie somewhere.

    Attributes:
        place: the file.
        tensors: by name.
        of_run: whether a run of this project has saved them.
        kept: what it has saved beside them, which nobody has checked.
    """

    place: Path
    tensors: dict[str, Tensor]
    of_run: bool
    kept: Mapping[str, Any] = field(default_factory=dict)

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


def read(place: Path, key: str = "model.weights") -> Stored:
    """The weights in a file, or of the best checkpoint in a run folder.

    Args:
        place: what was typed; a link to a file is followed.
        key: by which it was typed.

    Raises:
        RecipeError: there are none, or they cannot be read without executing something.
    """
    path = place
    if place.is_dir():
        if not (place / CONFIG).exists():
            raise RecipeError(
                f"{key}={place} is no run: give the folder of a run, such as outputs/DATE/TIME-ID, or a file of weights"
            )
        check_files(place)
        path = best_checkpoint(place)
    elif not path.exists():
        raise RecipeError(
            f"{key}={place} is not there: give the folder of a run, such as outputs/DATE/TIME-ID, or a file of weights"
        )
    try:
        state = _read_safetensors(path) if path.suffix.lower() == SAFETENSORS else _read_torch(path)
    except RecipeError:
        raise
    except (Exception, RecursionError) as error:
        raise RecipeError(
            f"{key}={path} cannot be read: expected a state_dict of tensors, saved by torch.save or safetensors: {first_line(error)}"
        ) from None
    of_run = isinstance(state, Mapping) and "recipe" in state and "state_dict" in state
    kept = state["recipe"] if of_run and isinstance(state["recipe"], Mapping) else {}
    for name in NAMED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    plain = isinstance(state, Mapping)
    tensors = {str(name): value for name, value in state.items() if _is_weight(value)} if plain else {}
    if not tensors:
        raise RecipeError(f"{key}={path} holds no weights: expected a state_dict, tensors by name")
    return Stored(path, tensors, of_run, kept)


def _is_weight(value: object) -> bool:
    return (
        isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized and value.device.type != "meta"
    )


def _read_torch(path: Path) -> Any:
    with open(open_file(path.resolve()), "rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("its parts are compressed, torch's never are")
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load
    except ModuleNotFoundError:
        raise RecipeError(f"{path} needs a package to be read: pip install safetensors") from None
    with open(open_file(path.resolve()), "rb") as file:
        return load(file.read())
