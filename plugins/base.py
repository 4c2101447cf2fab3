"""The contract between a training technique and the engine that runs it, to be imported from one place.

A technique is a :class:`Plugin`: a Lightning callback with a handful of further methods, each optional.
`docs/design.md` tells in which order the engine calls them.
"""

from plugins import declare
from plugins.data import LOOKED_AT, UNIT, Batch, Phase, Setting, Task, class_probabilities, per_label
from plugins.directions import MODES, larger_is_better
from plugins.drawing import Panel
from plugins.errors import (
    Diverged,
    GivenUp,
    RecipeError,
    Refusal,
    expect,
    expect_choice,
    expect_count,
    expect_nonnegative,
    expect_positive,
    expect_probability,
)
from plugins.hooks import HOOKS
from plugins.identity import ALWAYS, called
from plugins.module import Module
from plugins.optimizer_wrapper import OptimizerWrapper, closure_of, needs_closure
from plugins.parameters import Named
from plugins.plugin import Option, Plugin, Selection
from plugins.seeds import derive_seed
from plugins.selection import (
    check_selection,
    declared_directions,
    does_something,
    expect_point,
    implementers,
    order,
    own_metrics,
    right_on_class_maps,
    right_on_named_inputs,
    right_on_shards,
)
from plugins.stage import Stage

__all__ = [
    "ALWAYS",
    "HOOKS",
    "LOOKED_AT",
    "MODES",
    "UNIT",
    "Batch",
    "Diverged",
    "GivenUp",
    "Module",
    "Named",
    "OptimizerWrapper",
    "Option",
    "Panel",
    "Phase",
    "Plugin",
    "RecipeError",
    "Refusal",
    "Selection",
    "Setting",
    "Stage",
    "Task",
    "called",
    "check_selection",
    "class_probabilities",
    "closure_of",
    "declare",
    "declared_directions",
    "derive_seed",
    "does_something",
    "expect",
    "expect_choice",
    "expect_count",
    "expect_nonnegative",
    "expect_point",
    "expect_positive",
    "expect_probability",
    "implementers",
    "larger_is_better",
    "needs_closure",
    "order",
    "own_metrics",
    "per_label",
    "right_on_class_maps",
    "right_on_named_inputs",
    "right_on_shards",
]
