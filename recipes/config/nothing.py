"""`none`: nothing of a group, as an option of every group that may have nothing. Nothing here imports torch.

A sweep needs a word for the job without a technique: `-m +wrapper=none,sam`. No group has a file for it. Hydra finds `none` in its
store of configs, and here it stands for no option at all. A group with a file of that name keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

from recipes.config.catalogue import NOT_FOR_TRAINING, Catalogue

NONE = "none"


def offer(folders: Iterable[Path]) -> None:
    """Let Hydra find `none` in each group of these config folders."""
    found: dict[str, bool] = {}
    for folder in folders:
        for place in folder.iterdir():
            if place.is_dir() and place.name.isidentifier() and place.name not in NOT_FOR_TRAINING:
                found[place.name] = found.get(place.name, False) or (place / f"{NONE}.yaml").exists()
    for group, has_file in found.items():
        if not has_file:
            ConfigStore.instance().store(group=group, name=NONE, node={}, provider="lightning_recipes")


def may_be_nothing(catalogue: Catalogue, group: str) -> bool:
    """Whether a run can be without any option of a group, and no file of the group is called `none`."""
    return NONE not in catalogue.groups[group] and (group not in catalogue.defaults or catalogue.many(group))


def is_nothing(catalogue: Catalogue, override: Override) -> bool:
    """Whether a word says that a run has no option of a group."""
    group = override.key_or_group
    if group not in catalogue.groups or override.is_delete() or not may_be_nothing(catalogue, group):
        return False
    return str(override.value()) == NONE
