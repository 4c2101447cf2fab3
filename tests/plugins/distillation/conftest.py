"""Run folders, as the tests of runs have them."""

from tests.recipes.conftest import extra, folder, folders, with_plugin

__all__ = ["extra", "folder", "folders", "with_plugin"]
