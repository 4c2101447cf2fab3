"""Pretrained weights expect inputs of their own: a run that starts from some prepares its inputs so. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from hydra.core.override_parser.types import Override

from recipes.config.catalogue import Catalogue
from recipes.config.own import SOURCE

GROUP, OPTION = "preprocessing", "pretrained"


def prepare_as_weights_expect(
    catalogue: Catalogue, config: dict[str, Any], overrides: Iterable[Override], by_recipe: Mapping[str, Any]
) -> None:
    """Choose `preprocessing=pretrained` where `model.weights` is given and nobody has chosen a preprocessing.

    Args:
        catalogue: knows the option.
        config: composed and checked; changed in place.
        overrides: that were typed.
        by_recipe: what a recipe chooses and sets, by group.
    """
    weights = (
        None if SOURCE in config["model"] else config["model"].get("weights")
    )  # those of a class of one's own are its own affair
    typed = any(override.key_or_group.partition(".")[0] == GROUP for override in overrides)
    if (isinstance(weights, str) or weights is True) and not typed and GROUP not in by_recipe:
        config[GROUP] = deepcopy(catalogue.option(GROUP, OPTION).node)
