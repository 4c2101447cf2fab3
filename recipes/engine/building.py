"""A module is built once, before its optimizer is made: plugins are put in order, checked, and change the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch

from plugins.base import Plugin, RecipeError, Selection, Setting, check_selection, derive_seed, implementers, order
from plugins.sites import is_compiled, takes_tokens
from recipes.engine.callbacks import check_callbacks
from recipes.engine.loading import setting_from_loader
from recipes.engine.losses import Combine, TaskLoss, TaskLosses
from recipes.engine.parts import Whole
from recipes.engine.randomness import own_draws
from recipes.engine.sharding import shards
from recipes.engine.units import standardized

PER_STEP = ("transform_batch", "around_pass", "penalty", "backward", "combine", "transform_gradient", "after_step")
PER_EVALUATION = ("evaluation_weights", "predict", "measure", "metrics", "after_validation")
HOOKS = (*PER_STEP, *PER_EVALUATION)  # that the engine calls while it trains and evaluates
ALONE = ("backward", "combine", "predict", "evaluation_weights")  # of which there can be one


def set_up(module: Whole, stage: str) -> None:
    """Build once, from the trainer's callbacks."""
    callbacks: list[L.Callback] = module.trainer.callbacks  # type: ignore[attr-defined]
    given = [callback for callback in callbacks if isinstance(callback, Plugin)]
    if not module.is_built:
        module.build(given)
    elif new := [plugin.state_key for plugin in given if plugin not in module.plugins]:
        raise RecipeError(f"{new[0]} came after the model was built: make a new RecipeModule to train with it")
    if stage == "fit":
        for plugin in module.plugins:
            _expect_arguments(plugin, module.trainer)
        check_callbacks(callbacks, module.plugins, module.model)


def _expect_arguments(plugin: Plugin, trainer: L.Trainer) -> None:
    """Refuse a Trainer that somebody made without what a technique asks of it."""
    for name, value in plugin.trainer_arguments().items():
        if (received := getattr(trainer, name, value)) != value:
            raise RecipeError(f"{plugin.state_key} needs L.Trainer({name}={value!r}), got {received!r}")


def build(module: Whole, plugins: Iterable[Plugin], setting: Setting | None, facts: Mapping[str, Any]) -> None:
    """Check the selection and let the plugins change the model, in their declared order."""
    module.plugins = order(plugins)
    if (given := setting or module.setting) is None:
        given = setting_from_loader(module.trainer, module.model, module.seed, module.standardize_targets)
        module.standardize_targets &= given.training_targets is not None
    module.setting = given
    facts = facts or _facts(module)
    check_selection(Selection(module.plugins, given, parts=module.parts, **facts))
    for plugin in module.plugins:
        plugin.prepare(given)
    for plugin in implementers(module.plugins, "transform_model"):
        with own_draws(derive_seed(module.seed, "model", plugin.state_key), module.model):
            module.model = plugin.transform_model(module.model)
    if is_compiled(module.model):
        torch.compiler.reset()  # what was compiled before knows nothing of layers that were put in
    module.hooks = {name: implementers(module.plugins, name) for name in HOOKS}
    cut = [f"{n} {what}" for n, what in ((module.parts, "parts a step"), (facts.get("devices", 1), "devices")) if n > 1]
    losses = {task.name: TaskLoss(module.loss, task, " and ".join(cut)) for task in given.tasks}
    minimized: Mapping[str, Any] = {}
    if module.standardize_targets:
        module.model, minimized = standardized(module.model, given, losses, str(facts.get("precision")))
    module.takes_tokens = takes_tokens(module.model)
    _check_hooks(module, given)
    module.task_losses = TaskLosses(losses, minimized, _combining(module))
    if module.compiled:
        module.model.compile()  # in place: parameters keep their names
    module.is_built = True


def _facts(module: Whole) -> dict[str, Any]:
    trainer = module.trainer
    sharded = shards(trainer.strategy)
    return {
        "precision": str(trainer.precision),
        "devices": trainer.world_size,
        "compiled": module.compiled,
        "sharded": sharded,
    }


def _check_hooks(module: Whole, setting: Setting) -> None:
    """Refuse two plugins for what can be done by one, and probabilities of what is no logit."""
    predicts = module.hooks["predict"]
    classifies = any(task.kind == "classification" for task in setting.tasks)
    of_logits = [*predicts, *(plugin for plugin in module.plugins if plugin.needs_probabilities)]
    if of_logits and classifies and not getattr(module.loss, "takes_logits", True):
        raise RecipeError(
            f"{of_logits[0].state_key} makes probabilities of logits, which {type(module.loss).__name__} does not train: take "
            f"loss=cross_entropy"
        )
    for name in ALONE:
        if len(module.hooks[name]) > 1:
            both = " and ".join(plugin.state_key for plugin in module.hooks[name])
            raise RecipeError(f"{both} both want to {name.replace('_', ' ')}: leave one of them out")


def _combining(module: Whole) -> Combine | None:
    """How a plugin makes one scalar of the losses of all tasks; None where none does."""
    for plugin in module.hooks["combine"]:
        return lambda losses: plugin.combine(losses, module)
    return None
