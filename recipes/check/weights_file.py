"""A file of weights for an option that starts from some: of the model that is trained, drawn with another seed."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from plugins.base import RecipeError
from recipes.data.base import Data
from recipes.run.build import build_model

SEED = 1234


def weights_file(config: dict[str, Any], data: Data) -> Path | None:
    """A state_dict of a config's model for these data, gone when this process ends; None: the model takes no such data."""
    task = data.tasks[0]
    known = repr((config["model"], data.shape, task.outputs, task.shape))
    path = _folder() / f"{hashlib.sha256(known.encode()).hexdigest()[:16]}.pt"
    if not path.exists():
        try:
            model = build_model({"model": config["model"]}, data.shape, task.outputs, SEED, task.shape)
        except RecipeError:
            return None
        torch.save(model.state_dict(), path)
    return path


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
