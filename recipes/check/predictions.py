"""What is asked of an option that predicts: probabilities of classes and of labels, whatever is predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from plugins.base import RecipeError, Task, implementers
from recipes.check.choice import catalogue, plugin_class
from recipes.check.forms import needed, words_of
from recipes.check.harness import fit, merged_config, with_companions
from recipes.check.outcome import NotAsked, Wrong, expect, wrong
from recipes.config.composing import compose, finish
from recipes.engine.module import RecipeModule

OTHERS = ("labels", "maps")  # forms with probabilities of another kind than one of each class
ROUNDING = 1e-3
EVERY = "trainer.val_every_n_steps"


def probable(name: str, folder: Path) -> None:
    """What `predict` gives are probabilities, of which those of classes sum to 1."""
    found = plugin_class(name)
    if found is None or not implementers([found], "predict"):
        raise NotAsked("does not predict")

    def watch(module: RecipeModule) -> None:
        assert module.setting is not None
        for plugin in module.hooks["predict"]:
            plugin.predict = _watched(plugin.predict, module.setting.tasks)

    fit(merged_config(with_companions(name), {EVERY: 3}), folder / "images", 3, prepare=watch)
    for form in OTHERS:
        (folder / form).mkdir()
        try:
            words = [*words_of(form, needed(name), folder / form), f"{EVERY}=3"]
            fit(finish(catalogue(), compose(words), words), folder / form / "run", 3, prepare=watch)
        except RecipeError:
            continue  # is refused, which other forms tells
        except Wrong as error:
            wrong(f"on {form}: {error}")


def _watched(call: Callable[..., Mapping[str, Tensor]], tasks: tuple[Task, ...]) -> Callable[..., Mapping[str, Tensor]]:
    def watched(*arguments: Any) -> Mapping[str, Tensor]:
        found = call(*arguments)
        for task in tasks:
            _expect_probabilities(found.get(task.name), task)
        return found

    return watched


def _expect_probabilities(found: Tensor | None, task: Task) -> None:
    instead = "probabilities(module.outputs(x), module.setting) of plugins/inference/_probabilities.py makes them"
    if found is None:
        wrong(f"predict gives nothing for target {task.name!r}: one entry a task is needed")
    if task.kind == "regression":
        return
    low, high = float(found.min()), float(found.max())
    inside = low >= -ROUNDING and high <= 1 + ROUNDING
    expect(inside, f"predict gives numbers from {low:.3g} to {high:.3g}, and no probabilities: {instead}")
    far = float((found.float().sum(1) - 1).abs().max()) if task.kind == "classification" else 0.0
    expect(far <= ROUNDING, f"predict gives probabilities of classes that do not sum to 1, but are {far:.3g} away: {instead}")
