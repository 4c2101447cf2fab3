"""Whether there is the metric that is to choose the best model, or to stop training, told before the first batch."""

from __future__ import annotations

import difflib
import logging
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint

from plugins.base import Plugin, RecipeError, Task, declared_directions, implementers, larger_is_better, own_metrics
from recipes.data.base import Data
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.engine.module import RecipeModule

log = logging.getLogger("recipes")
SAMPLES = 16  # of a rehearsal
ELSEWHERE = ("train/", "step/", "test/")
OF_TRAINING = ("train/loss", "train/acc", "gap/acc")  # there with each validation
OF_STEPS = ("lr", "epoch", "step")


def metrics_of(tasks: Sequence[Task], plugins: Sequence[Plugin] = ()) -> list[str]:
    """The metrics that every validation has, and those that plugins measure with torchmetrics objects, whose names are known."""
    each = [task for task in tasks if len(tasks) > 1]
    classified = [task for task in tasks if task.kind != "regression"]
    names = ["loss", *(["acc"] if classified else []), *(f"{task.name}/loss" for task in each)]
    names += [f"{task.name}/acc" for task in each if task in classified]
    return [f"val/{name}" for name in (*names, *own_metrics(plugins, tasks))]


def choose_monitor(config: Mapping[str, Any], plugins: Sequence[Plugin], tasks: Sequence[Task]) -> tuple[str, Plugin | None]:
    """The metric that chooses the best model, and the technique that has the say where there is one.

    Raises:
        RecipeError: early stopping goes by another metric than the user asks for.
    """
    # the last stage has the last word: early stopping ends training by its own metric
    chooser = next((plugin for plugin in reversed(plugins) if plugin.monitor), None)
    classification = any(task.kind == "classification" for task in tasks)
    asked = config["trainer"]["monitor"]
    monitor = asked or (chooser and chooser.monitor) or ("val/acc" if classification else "val/loss")
    if chooser and chooser.group == "stopping" and chooser.monitor != monitor:
        raise RecipeError(
            f"trainer.monitor={monitor} and {chooser.group}.monitor={chooser.monitor} choose different best models: "
            f"leave trainer.monitor out"
        )
    return monitor, chooser


def direction_of(config: Mapping[str, Any], plugins: Sequence[Plugin], tasks: Sequence[Task]) -> bool:
    """Whether a larger value of the metric that chooses the best model is better.

    Raises:
        RecipeError: nobody knows; or the user says the contrary of what is known for sure, or of what stopping goes by.
    """
    monitor, chooser = choose_monitor(config, plugins, tasks)
    mode, declared = config["trainer"].get("mode"), declared_directions(plugins, tasks)
    known = larger_is_better(monitor, declared)
    told = mode or (chooser.monitor_mode if chooser and chooser.monitor == monitor else None)
    if told and chooser and chooser.monitor_mode not in (None, told) and chooser.monitor == monitor:
        raise RecipeError(
            f"trainer.mode={told} and {chooser.group}.mode={chooser.monitor_mode} contradict each other: leave one out"
        )
    if told is None:
        if known is None:
            raise RecipeError(
                f"whether a larger or a smaller {monitor} is better is not known: type trainer.mode=max or trainer.mode=min"
            )
        return known
    sure = monitor in metrics_of(tasks, plugins) or not {monitor.partition("/")[2], monitor.rpartition("/")[2]}.isdisjoint(
        declared
    )
    if sure and known is not None and known != (told == "max"):
        right = "max" if known else "min"
        raise RecipeError(f"trainer.mode={told}: {monitor} is best at its {right}; leave trainer.mode out")
    return told == "max"


def check_monitors(
    config: Mapping[str, Any],
    data: Data,
    plugins: Sequence[Plugin],
    make: Callable[[Mapping[str, Any]], RecipeModule],
    make_trainer: Callable[[Mapping[str, Any], Sequence[L.Callback]], L.Trainer],
) -> None:
    """Refuse a metric that no validation of this run will have.

    The names of techniques' own metrics are known by measuring only, so if one of them is asked for, a run of one step is
    rehearsed with objects of its own on a few samples; nothing of it reaches the real one.

    Args:
        config: of the run.
        data: that has been set up.
        plugins: of the run.
        make: makes a module, with plugins of its own, from a config.
        make_trainer: makes the trainer of a rehearsal from a config and callbacks.

    Raises:
        RecipeError: there is no such metric, or two that contradict each other.
    """
    choose_monitor(config, plugins, data.tasks)
    wanted: dict[str, tuple[str, Plugin | None]] = {
        place_of(config, plugin): (plugin.monitor, plugin) for plugin in plugins if plugin.monitor
    }
    if asked := config["trainer"]["monitor"]:
        wanted = {"trainer.monitor": (asked, None), **wanted}
    for option, node in (config.get("callback") or {}).items():
        if node.get("monitor") and node["monitor"] not in OF_TRAINING:
            wanted[f"callback.{option}.monitor"] = node["monitor"], None
    known = metrics_of(data.tasks, plugins)
    for place, (monitor, _) in wanted.items():
        if monitor.startswith(ELSEWHERE) or monitor in OF_STEPS:
            raise RecipeError(unknown(f"{place}={monitor} is no metric of the validation", monitor, known))
    if all(monitor in known for monitor, _ in wanted.values()):
        direction_of(config, plugins, data.tasks)
        return
    seen = rehearse(config, data, make, make_trainer)
    for place, (monitor, plugin) in wanted.items() if seen else ():
        there = seen.get(plugin.state_key if plugin and implementers([plugin], "after_validation") else "", [])
        if monitor not in there:
            names = [name for name in there if not name.startswith(ELSEWHERE) and name not in OF_STEPS]
            raise RecipeError(unknown(f"{place}={monitor} is no metric of this run", monitor, names))
    direction_of(config, plugins, data.tasks)


def place_of(config: Mapping[str, Any], plugin: Plugin) -> str:
    """What is typed to set a technique's monitor."""
    return f"{plugin.group if '_target_' in config.get(plugin.group, {}) else plugin.state_key.replace('/', '.')}.monitor"


def unknown(fault: str, name: str, names: Iterable[str]) -> str:
    """The line about a metric that is not there."""
    names = sorted(names, key=lambda other: (not other.startswith("val/"), other))
    near = difflib.get_close_matches(name, names, 1, 0.5) or [
        other for other in names if other.rpartition("/")[2] == name.rpartition("/")[2]
    ]
    return f"{fault}: there are {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")


class Rehearsal(Checkpoint):
    """Ends a training after its first step, with a validation, and keeps the names of what that measures.

    Lightning takes it for what keeps the checkpoints, and so writes none of its own.
    """

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Validate whatever the interval is, and watch what techniques are told."""
        trainer.check_val_every_n_epoch = None
        for plugin in pl_module.hooks["after_validation"]:
            plugin.after_validation = self._watched(plugin.state_key, plugin.after_validation)

    def _watched(self, key: str, original: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        def after_validation(module: Any, metrics: Mapping[str, float]) -> dict[str, float]:
            self.seen[key] = list(metrics)
            return original(module, metrics)

        return after_validation

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        """This is enough."""
        trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """What is there to choose by."""
        self.seen[""] = list(pl_module.metrics)


def rehearse(
    config: Mapping[str, Any],
    data: Data,
    make: Callable[[Mapping[str, Any]], RecipeModule],
    make_trainer: Callable[[Mapping[str, Any], Sequence[L.Callback]], L.Trainer],
) -> dict[str, list[str]]:
    """The names of the metrics after one step: all of them under "", and under a technique's key those that it is told of.

    Empty where one step on a few samples on the CPU is not possible.
    """
    small = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}
    small |= {"sync_batchnorm": False, "compile": False, "monitor": None, "mode": None}
    config = {**config, "trainer": {**config["trainer"], **small}, "max_epochs": 1, "max_steps": 1}
    rehearsal, states = Rehearsal(), (random.getstate(), np.random.get_state())
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = make(config)
            for plugin in module.plugins:
                if plugin.monitor:
                    plugin.monitor, plugin.monitor_mode = metrics_of(data.tasks)[0], None
            train, val = data.splits["train"], data.splits["val"]
            count = min(len(train), SAMPLES * module.parts)
            steps = StepLoader(train[:count], "full", config["seed"], module.parts)
            make_trainer(config, [*module.plugins, rehearsal]).fit(module, steps, EvaluationLoader(val[:SAMPLES]))
    except Exception as error:  # whatever it is, the run itself may go well, and will tell what does not
        log.debug("no rehearsal: %s", error)
        return {}
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return rehearsal.seen
