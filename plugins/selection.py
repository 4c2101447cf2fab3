"""Which techniques act, in which order, and whether they go together."""

from __future__ import annotations

from collections.abc import Iterable

from plugins.errors import RecipeError, Refusal, expect_choice
from plugins.metric import MODES
from plugins.plugin import Plugin, Selection

# Methods that see weights before they are cut up, or not at all.
AWAY_FROM_WEIGHTS = (
    *("prepare", "check", "trainer_arguments", "state_dict", "load_state_dict", "next_phase"),
    *("transform_model", "order", "transform_batch", "picture", "predict", "measure", "ruler"),
)


def order(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Plugins by stage, then name: the same for every order in which they were written."""
    return sorted(plugins, key=lambda plugin: (plugin.stage, plugin.group, plugin.option))


def implementers(plugins: Iterable[Plugin], method: str) -> list[Plugin]:
    """The plugins whose class defines `method`, in order."""
    return [plugin for plugin in plugins if getattr(type(plugin), method) is not getattr(Plugin, method)]


def declared_directions(plugins: Iterable[Plugin]) -> dict[str, str]:
    """What plugins declare of their own metrics, "max" or "min" by name.

    Raises:
        RecipeError: another word, or two plugins that contradict each other.
    """
    found: dict[str, str] = {}
    for plugin in plugins:
        for name, mode in plugin.directions.items():
            expect_choice(f"{plugin.state_key}: the direction of {name}", mode, MODES)
            if found.setdefault(name, mode) != mode:
                raise RecipeError(f"{plugin.state_key} declares {name} to be best at its {mode}, another technique does not")
    return found


def does_something(plugin: Plugin) -> bool:
    """Whether a plugin acts at all: some options, such as init=framework, stand for leaving things as they are."""
    return any(callable(value) and not name.startswith("__") for name, value in vars(type(plugin)).items()) or any(
        base is not Plugin and issubclass(base, Plugin) for base in type(plugin).__mro__[1:]
    )


def right_on_shards(plugin: Plugin) -> bool:
    """Whether a technique works where each process keeps only a part of each weight."""
    if plugin.on_shards is not None:
        return plugin.on_shards
    methods = [name for name in dir(Plugin) if callable(getattr(Plugin, name)) and not name.startswith("_")]
    return all(name in AWAY_FROM_WEIGHTS or not implementers([plugin], name) for name in methods)


def check_selection(selection: Selection) -> None:
    """Raise a :class:`Refusal` for the first pair that excludes each other, or for what a plugin says of the whole."""
    groups: dict[str, Plugin] = {}
    for plugin in selection.plugins:
        for name, reason in plugin.refuses.items():
            if selection.has(name):
                raise Refusal(f"{plugin.state_key} cannot be combined with {name}: {reason}")
        if (twin := groups.setdefault(plugin.state_key, plugin)) is not plugin:
            raise Refusal(f"{twin.state_key} is selected twice: leave one of the two out")
    for plugin in selection.plugins:
        plugin.check(selection)
        if selection.sharded and not right_on_shards(plugin):
            raise Refusal(
                f"{plugin.state_key} needs whole weights or gradients, and with trainer=fsdp each process keeps only parts "
                f"of them: type trainer=ddp"
            )
