"""The weights of another run, or of a file of weights, for a run that starts from them. Nothing in them is trusted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.config.places import check_files, open_file
from recipes.config.quoting import typed
from recipes.config.run_files import BEST, CHECKPOINTS, CONFIG
from recipes.engine import kept

SAFETENSORS = ".safetensors"
INSIDE = ("state_dict", "model", "model_state_dict")  # where others keep weights beside other things


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run's best weights.

    Raises:
        RecipeError: the run has not validated yet.
    """
    checkpoint = folder / CHECKPOINTS / BEST
    if not checkpoint.exists():
        raise RecipeError(
            f"{folder} has no checkpoints/best.ckpt: the run has not validated yet; type python train.py {typed('resume', folder)}"
        )
    return checkpoint


def load_weights(place: str | Path) -> dict[str, Tensor]:
    """Tensors by name: of a run its best checkpoint, as its test used them; of a file what it holds.

    Args:
        place: the folder of a run, one of its checkpoints, or a state_dict in a file of torch's or of safetensors.

    Raises:
        RecipeError: nothing lies there, or no weights.
    """
    path = Path(place)
    if path.is_dir():
        if not (path / CONFIG).exists():
            raise RecipeError(f"{path} is no run: give the folder of a run, such as outputs/DATE/TIME-ID, or a file of weights")
        check_files(path)
        path = best_checkpoint(path)
    elif not os.path.lexists(path):
        raise RecipeError(f"{path} is not there: give the folder of a run, such as outputs/DATE/TIME-ID, or a file of weights")
    else:
        path = path.resolve()  # what was typed may be a link, as in the folders of libraries
    found = _of_safetensors(path) if path.suffix == SAFETENSORS else _inside(kept.read(path))
    try:
        kept.check_tensors(found)
    except ValueError as error:
        raise RecipeError(f"{path} cannot be started from: {one_line(error)}; expected a state_dict") from None
    return dict(found)


def _inside(state: Any) -> Any:
    """The state_dict of a checkpoint, or what the file holds itself."""
    if not isinstance(state, Mapping):
        return state
    return next((state[name] for name in INSIDE if isinstance(state.get(name), Mapping)), state)


def _of_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError:
        raise RecipeError(f"{path} needs a package to be read: pip install safetensors") from None
    with open(open_file(path), "rb") as file:
        content = file.read()
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RecipeError(f"{path} cannot be loaded: {one_line(ValueError(str(error)))}") from None
