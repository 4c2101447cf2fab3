"""What to type after a run that used no technique: the same run with one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from plugins.base import RecipeError
from plugins.sites import ACTIVATIONS, find_sites
from recipes.store.folder import command_line

OWN = ("hydra", "resume", "overwrite", "sweep", "explain", "name", "notes", "optimizer")  # of this run, or to be replaced


def with_a_technique(command: Sequence[str], model: nn.Module) -> str:
    """The command of a run on the same data and model, with another optimizer and a technique that this model takes.

    Args:
        command: the words of the run.
        model: that was trained.
    """
    kept = [word for word in command if word.lstrip("+~").partition("=")[0].split(".")[0].split("/")[0] not in OWN]
    kept += [word for word in command if word.startswith("hydra.searchpath=")]
    try:
        find_sites(model, ACTIVATIONS, "activation")
        technique = "dropout"
    except RecipeError:  # dropout needs an activation
        technique = "l2"
    return command_line([*kept, f"+regularizer={technique}", "optimizer=adam"])
