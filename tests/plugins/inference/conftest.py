"""Run folders, as the tests of runs have them."""

from tests.recipes.conftest import folder, folders

__all__ = ["folder", "folders"]
