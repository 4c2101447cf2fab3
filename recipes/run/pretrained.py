"""A run that starts from pretrained weights: when they are read, what is told of them, what would undo them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from plugins.base import Plugin, RecipeError, Stage, does_something
from plugins.pretrained import pretrained_of
from recipes.engine.module import RecipeModule
from recipes.run.found import held_out_but_known


def without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model whose weights come from a checkpoint: those that it started from are not read again."""
    model = config["model"]
    return {**config, "model": {**model, "load_weights": False}} if model.get("weights") else dict(config)


def expect_weights_kept(config: Mapping[str, Any], plugins: Iterable[Plugin]) -> None:
    """Refuse initial weights that would be drawn over the pretrained ones."""
    if not (weights := config["model"].get("weights")):
        return
    for plugin in plugins:
        if plugin.group == "init" and plugin.stage in (Stage.INIT, Stage.MEASURED) and does_something(plugin):
            raise RecipeError(
                f"init={plugin.option} would draw over the weights of model.weights={weights}: leave one of the two out"
            )


def told(module: RecipeModule) -> Iterator[str]:
    """What is known of the weights that a run starts from, in lines; nothing where all are drawn at random."""
    if (found := pretrained_of(module.model)) is None:
        return
    yield from (f"model: {remark}" for remark in found.remarks)
    if known := held_out_but_known(found.kept, module.data_seen, module.data_content):
        yield f"model: the run that these weights are from {known}"
    typed = next((plugin for plugin in module.plugins if plugin.stage is Stage.PREPROCESSING), None)
    if found.shift is not None and typed is not None and typed.state_key != "preprocessing/pretrained":
        yield (
            f"model: preprocessing={typed.option} was chosen, which prepares inputs otherwise than those that the weights were trained on: "
            f"preprocessing=pretrained does as they expect"
        )
