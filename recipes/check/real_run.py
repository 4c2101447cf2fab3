"""What is asked of an option in the run that a user starts: it finishes, and what is best of its metrics is told as it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plugins.base import Plugin, larger_is_better
from recipes.check.choice import catalogue, plugin_class, select
from recipes.check.forms import expect_finished, trained
from recipes.check.harness import data_of, merged_config, numbers, with_companions
from recipes.check.outcome import expect, wrong
from recipes.run.build import build_plugins
from recipes.run.monitor import unknown

SETTINGS = {"trainer.progress": False, "trainer.accelerator": "cpu"}


def finishes(name: str, folder: Path) -> None:
    """A run of the option with what it needs, on what it is tried on, is taken by `train.py`, trains and ends well."""
    names = with_companions(name)
    config, run = {**merged_config(names, SETTINGS), "max_steps": 3, "logger": {}}, folder / "run"
    if data_of(config) is numbers():
        config["data"] = _saved_numbers(folder)
    run.mkdir()
    result = trained(config, run, select(names))
    expect_finished(result)
    for plugin in build_plugins(config):
        if type(plugin) is plugin_class(name):
            _expect_directions(plugin, result["metrics"])


def _saved_numbers(folder: Path) -> dict[str, Any]:
    """The option that reads the digits with a number each from a file."""
    split, path = numbers().splits["train"], folder / "numbers.npz"
    np.savez(path, x=split.x[:200, 0].numpy(), y=split.targets[""][:200].numpy())
    return {**catalogue().groups["data"]["npz"].node, "path": str(path), "batch_size": 16}


def _expect_directions(plugin: Plugin, metrics: Mapping[str, float]) -> None:
    """A name in the class's own `directions` is of a metric that is measured, and none says the contrary of what is declared.

    Others may be of other data, or of values that are no defaults.
    """
    own = vars(type(plugin)).get("directions", {})
    measured = {name: [metric for metric in metrics if name in _names(metric)] for name in own}
    if own and not any(measured.values()):
        name = next(iter(own))
        wrong(unknown(f"directions tell of {name}, which is not measured", name, metrics))
    for name, mode in own.items():
        for metric in measured[name]:
            larger = larger_is_better(metric)
            expect(
                larger in (None, mode == "max"),
                f"directions say that {name} is best at its {mode}, and its name says the contrary: give it another one",
            )


def _names(metric: str) -> Collection[str]:
    return {metric, metric.partition("/")[2], metric.rpartition("/")[2]}
