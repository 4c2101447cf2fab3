"""Short real trainings on the digits, for tests: see `recipes.check.harness`; and a kept run to give to what asks for one."""

from pathlib import Path

from recipes.check.harness import (
    NO_TECHNIQUES,
    SMALL,
    build,
    build_plugins,
    catalogue,
    config_of,
    data_of,
    digits,
    fit,
    is_many,
    merged_config,
    options,
    plugin_class,
    target,
    with_companions,
)
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
