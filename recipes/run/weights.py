"""The weights of another run, or of a file of weights, for a technique that starts from them."""

from __future__ import annotations

from pathlib import Path

from plugins.errors import RecipeError
from plugins.pretrained import Weights
from recipes.config.errors import one_line
from recipes.engine import kept
from recipes.models.stored import read
from recipes.run.found import held_out_but_known


def load_weights(place: str | Path, seen: str | None = None, content: str | None = None) -> Weights:
    """Tensors by name: of a run its best checkpoint, as its test used them; of a file what it holds.

    Args:
        place: the folder of a run, one of its checkpoints, or a state_dict in a file of torch's or of safetensors.
        seen: the fingerprint of the data and their splits here; None: not known.
        content: the same of all samples, however they are split.

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
    weights = Weights(found.tensors)
    weights.remark = held_out_but_known(found.kept, seen, content)
    return weights
