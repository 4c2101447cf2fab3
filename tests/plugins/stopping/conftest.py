"""Run folders, as the tests of runs have them, a clock, and the trainer of a test's own module."""

from tests.plugins.sampling.conftest import make_trainer
from tests.recipes.conftest import extra, folder, folders, with_plugin
from tests.recipes.run.test_time_limit import clock

__all__ = ["clock", "extra", "folder", "folders", "make_trainer", "with_plugin"]
