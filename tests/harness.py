"""Short real trainings on the digits, for tests: see `recipes.check.harness`; and a kept run to give to what asks for one."""

from pathlib import Path

from recipes.check.choice import NO_TECHNIQUES, catalogue, is_many, options, plugin_class, target
from recipes.check.harness import SMALL, build, build_plugins, config_of, data_of, digits, fit, merged_config, with_companions
from recipes.check.trained import parameters, same_bits, weights
from recipes.config.catalogue import FOLDER as CONF

ROOT = Path(__file__).parents[1]
TRAINED = ROOT / "tests" / "data" / "kept" / "sweep" / "0"  # a run on the digits
__all__ = [
    "CONF",
    "NO_TECHNIQUES",
    "ROOT",
    "SMALL",
    "TRAINED",
    "build",
    "build_plugins",
    "catalogue",
    "config_of",
    "data_of",
    "digits",
    "fit",
    "is_many",
    "merged_config",
    "options",
    "parameters",
    "plugin_class",
    "same_bits",
    "target",
    "weights",
    "with_companions",
]
