"""Which techniques act, in which order, and whether they go together."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from plugins.directions import MODES
from plugins.errors import RecipeError, Refusal, expect_choice
from plugins.hooks import HOOKS
from plugins.identity import called
from plugins.plugin import Option, Plugin, Selection
from plugins.stage import Stage

if TYPE_CHECKING:
    from torchmetrics import Metric

    from plugins.data import Setting, Task

Kind = TypeVar("Kind", bound=Option)


def order(options: Iterable[Kind]) -> list[Kind]:
    """Options by stage, then name: the same for every order in which they were written."""
    return sorted(options, key=lambda option: (option.stage, option.group, option.option))


def implementers(options: Iterable[Any], method: str) -> list[Any]:
    """Of options, or classes of options, those whose class defines `method`, in order."""
    return [option for option in options if _defines(option, method)]


def _defines(option: Option | type[Option], method: str) -> bool:
    kind, plain = option if isinstance(option, type) else type(option), getattr(Plugin, method)
    found = getattr(kind, method, plain)
    return getattr(found, "__func__", found) is not getattr(plain, "__func__", plain)


def own_metrics(plugins: Iterable[Plugin], tasks: Sequence[Task]) -> dict[str, tuple[Plugin, str, Metric]]:
    """The torchmetrics objects of plugins, new ones, with whose they are and their task, by the names they are published by.

    Raises:
        RecipeError: no such object; two of one name, or one that is called like what is always measured.
        Refusal: a task without one prediction of each number.
    """
    found: dict[str, tuple[Plugin, str, Any]] = {}
    for plugin in implementers(plugins, "metrics"):
        for task in tasks:
            for own, metric in plugin.metrics(task).items():
                expect_point(plugin.state_key, [task])
                name = f"{task.name}/{own}" if len(tasks) > 1 else own
                if not callable(getattr(metric, "update", None)) or not callable(getattr(metric, "compute", None)):
                    raise RecipeError(
                        f"{plugin.state_key}: {name} must be a torchmetrics object, got {type(metric).__name__}; return torchmetrics.Metric"
                    )
                if name in found or own in ("loss", "acc"):
                    raise RecipeError(f"{plugin.state_key} measures {name}, which is measured already: give it another name")
                found[name] = plugin, task.name, metric
    return found


def expect_point(option: str, tasks: Iterable[Task], instead: str = "add 0.5 to it") -> None:
    """Refuse tasks of which several quantiles are predicted, and not the median, to who measures one prediction of each number."""
    if not all(task.has_point for task in tasks):
        raise Refusal(f"{option} measures one prediction of each number, and loss.q has several without the median: {instead}")


def declared_directions(plugins: Iterable[Plugin], tasks: Sequence[Task] = ()) -> dict[str, str]:
    """What plugins declare of their own metrics, "max" or "min" by name; of torchmetrics objects what these tell themselves.

    Raises:
        RecipeError: another word; two plugins that contradict each other, or one that contradicts its torchmetrics object.
    """
    plugins = list(plugins)
    found: dict[str, str] = {}
    for plugin in plugins:
        for name, mode in plugin.directions.items():
            expect_choice(f"{plugin.state_key}: the direction of {name}", mode, MODES)
            if found.setdefault(name, mode) != mode:
                raise RecipeError(f"{plugin.state_key} declares {name} to be best at its {mode}, another technique does not")
    for name, (plugin, _, metric) in own_metrics(plugins, tasks).items():
        if (better := getattr(metric, "higher_is_better", None)) is None:
            continue
        mode = found.setdefault(name, "max" if better else "min")
        said = {mode, plugin.directions.get(name.rpartition("/")[2], mode)}  # of several tasks a name stands for that of each
        if said != {"max" if better else "min"}:
            raise RecipeError(
                f"{plugin.state_key}: directions and higher_is_better={bool(better)} of the torchmetrics object contradict each other for "
                f"{name}: leave it out of directions"
            )
    return found


def does_something(plugin: Plugin) -> bool:
    """Whether a plugin acts at all: some options, such as init=framework, stand for leaving things as they are."""
    return any(callable(value) and not name.startswith("__") for name, value in vars(type(plugin)).items()) or any(
        base is not Plugin and issubclass(base, Plugin) for base in type(plugin).__mro__[1:]
    )


def right_on_shards(option: Option | type[Option]) -> bool:
    """Whether an option works where each process keeps only a part of each weight: as it declares, or by what it defines."""
    if option.on_shards is not None:
        return option.on_shards
    away = {hook.name for hook in HOOKS if not hook.sees_weights} | {"state_dict", "load_state_dict"}
    methods = [name for name in dir(Plugin) if callable(getattr(Plugin, name)) and not name.startswith("_")]
    return all(name in away or not _defines(option, name) for name in methods)


def right_on_named_inputs(option: Option | type[Option]) -> bool:
    """Whether an option works where inputs are several tensors by name: as it declares, or by what it defines."""
    if option.on_named_inputs is not None:
        return option.on_named_inputs
    in_front = option.stage is Stage.PREPROCESSING and _defines(option, "transform_model")  # its layer is given inputs
    return not in_front and not any(hook.sees_inputs and _defines(option, hook.name) for hook in HOOKS)


def right_on_class_maps(option: Option | type[Option]) -> bool:
    """Whether an option works where targets have a label for each place: as it declares, or by what it defines."""
    if option.on_class_maps is not None:
        return option.on_class_maps
    return not any(hook.sees_targets and _defines(option, hook.name) for hook in HOOKS)


def _expect_right_on_data(option: Option | type[Option], setting: Setting) -> None:
    """Refuse an option that would be given data of a form that it is not made for."""
    name = called(option)
    instead = "type preprocessing=none" if name.startswith("preprocessing/") else "leave it out"
    if setting.is_named and not right_on_named_inputs(option):
        raise Refusal(
            f"{name} takes inputs that are one tensor of numbers, and these are several ({', '.join(setting.shape)}): {instead}"
        )
    if setting.tokens and option.on_named_inputs is False:
        raise Refusal(
            f"{name} takes inputs that are quantities, and these are whole numbers that stand for something: {instead}"
        )
    if setting.has_maps and not right_on_class_maps(option):
        raise Refusal(
            f"{name} takes targets with one label a sample, and these have a class for each place (class maps): {instead}"
        )


def check_selection(selection: Selection) -> None:
    """Raise a :class:`Refusal` for the first pair that excludes each other, or for what an option says of the whole.

    Raises:
        Refusal: see `Option.refuses`, `Option.check` and `Option.on_shards`; an option that is selected twice.
    """
    groups: dict[str, Plugin] = {}
    for option in (*selection.plugins, *selection.others):
        for name, reason in option.refuses.items():
            if selection.has(name):
                raise Refusal(f"{called(option)} cannot be combined with {name}: {reason}")
    for plugin in selection.plugins:
        if (twin := groups.setdefault(plugin.state_key, plugin)) is not plugin:
            raise Refusal(f"{twin.state_key} is selected twice: leave one of the two out")
    for option in (*selection.plugins, *selection.others):
        _expect_right_on_data(option, selection.setting)
        check: Any = option.check
        if not isinstance(option, type) or inspect.ismethod(check):  # a class may say as much of itself
            check(selection)
        if selection.sharded and not right_on_shards(option):
            raise Refusal(
                f"{called(option)} needs whole weights or gradients, and with trainer=fsdp each process keeps only parts "
                f"of them: type trainer=ddp"
            )
