"""Where Hydra looks for options: our own, those of installed packages, those of the command line. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from plugins.errors import RecipeError
from recipes.config.catalogue import FOLDER, package_folder
from recipes.config.launchers import offer_launchers
from recipes.config.nothing import offer
from recipes.config.words import parse_word


class InstalledConfigs(SearchPathPlugin):
    """The config folders of installed packages on Hydra's search path."""

    folders: Sequence[tuple[str, Path]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders behind our own."""
        for owner, folder in self.folders:
            search_path.append(owner, f"file://{folder}")


def register(installed: Sequence[tuple[str, Path]]) -> None:
    """Make Hydra search these folders too, and offer the launchers of sweeps."""
    InstalledConfigs.folders = installed
    offer([FOLDER, *(folder for _, folder in installed)])
    Plugins.instance().register(InstalledConfigs)
    offer_launchers()


def search_folders(words: Iterable[str], config_dir: str | None) -> list[tuple[str, Path]]:
    """The config folders that `--config-dir` and `hydra.searchpath` name."""
    places = [config_dir] if config_dir else []
    for word in words:
        if word.startswith("hydra.searchpath="):
            value = parse_word(OverridesParser.create(), word).value()
            places += value if isinstance(value, list) else [str(value)]
    found = []
    for place in places:
        scheme, _, name = place.rpartition("://")
        folder = package_folder(name.replace("/", ".")) if scheme == "pkg" else Path(name)
        if folder is None or not folder.is_dir():
            raise RecipeError(f"there is no config folder {place}")
        found.append((place, folder.absolute()))
    return found


def searched_folders(sources: Iterable[Any]) -> list[tuple[str, Path]]:
    """The config folders, beside our own, that Hydra searched for a composed config, from its list of sources."""
    sources = [source for source in sources if source.provider not in ("hydra", "main", "schema")]
    found = [(s.provider, package_folder(s.path.replace("/", ".")) if s.schema == "pkg" else Path(s.path)) for s in sources]
    return [(provider, folder) for provider, folder in found if folder is not None]
