"""The weights of another run, or of a file of weights, for a technique that starts from them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.engine import kept
from recipes.models.stored import read


def load_weights(place: str | Path) -> dict[str, Tensor]:
    """Tensors by name: of a run its best checkpoint, as its test used them; of a file what it holds.

    Args:
        place: the folder of a run, one of its checkpoints, or a state_dict in a file of torch's or of safetensors.

    Raises:
        RecipeError: nothing lies there, or no weights.
    """
    found = read(Path(place), "init.folder")
    try:
        kept.check_tensors(found.tensors)
    except ValueError as error:
        raise RecipeError(
            f"init.folder={found.place} cannot be started from: {one_line(error)}; expected a state_dict"
        ) from None
    return found.tensors
