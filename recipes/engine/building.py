"""A module is built once, before its optimizer is made: plugins are put in order, checked, and change the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lightning as L
import torch

from plugins.base import (
    ALWAYS,
    HOOKS,
    Option,
    Plugin,
    RecipeError,
    Selection,
    Setting,
    called,
    check_selection,
    derive_seed,
    implementers,
    order,
)
from plugins.compiled import is_compiled
from plugins.logits import trains_logits
from plugins.recording import Recording
from plugins.sites import is_expanded, takes_tokens
from recipes.engine.callbacks import check_callbacks
from recipes.engine.lightning_private import loader_of
from recipes.engine.loading import instruct_loader, setting_from_loader
from recipes.engine.losses import TaskLoss, refined
from recipes.engine.objective import Combine, TaskLosses, total_of
from recipes.engine.parts import Whole
from recipes.engine.randomness import own_draws
from recipes.engine.samples import ignored_label
from recipes.engine.sharding import shards
from recipes.engine.timing import gating
from recipes.engine.units import standardized


def set_up(module: Whole, stage: str) -> None:
    """Build once, from the trainer's callbacks."""
    callbacks: list[L.Callback] = module.trainer.callbacks  # type: ignore[attr-defined]
    given = [callback for callback in callbacks if isinstance(callback, Plugin)]
    if not module.is_built:
        module.build(given)
    elif new := [plugin.state_key for plugin in given if plugin not in (*module.plugins, *module.left_out)]:
        raise RecipeError(f"{new[0]} came after the model was built: make a new RecipeModule to train with it")
    if stage == "fit":
        if other := module.learned_from - {"fit"}:
            raise RecipeError(
                f"the model has learned statistics of the data from the loader of trainer.{min(other)}: make a new RecipeModule for the "
                f"training, or begin with trainer.fit"
            )
        _expect_whole(module.model)
        for plugin in module.plugins:
            _expect_arguments(plugin, module.trainer)
        instruct_loader(module, loader_of(module.trainer.fit_loop))
        check_callbacks(callbacks, module.plugins, module.model)


def _expect_whole(model: torch.nn.Module) -> None:
    """Refuse weights and buffers into which no checkpoint can be loaded."""
    for name, value in model.state_dict().items():
        if type(value) is torch.Tensor and value.layout == torch.strided and is_expanded(value):
            raise RecipeError(
                f"{name} of the model has more entries than numbers in memory, as of expand(), and no checkpoint can be loaded into it: "
                f"register the buffer as .clone(), or with persistent=False"
            )


def _expect_arguments(plugin: Plugin, trainer: L.Trainer) -> None:
    """Refuse a Trainer that somebody made without what a technique asks of it."""
    for name, value in plugin.trainer_arguments().items():
        if (received := getattr(trainer, name, value)) != value:
            raise RecipeError(f"{plugin.state_key} needs L.Trainer({name}={value!r}), got {received!r}")


def build(module: Whole, plugins: Iterable[Plugin], setting: Setting | None, facts: Mapping[str, Any]) -> None:
    """Leave out what is off, check the selection and let the plugins change the model, in their declared order."""
    asked = order(plugins)
    module.left_out = [plugin for plugin in asked if plugin.is_off]
    module.plugins = [plugin for plugin in asked if not plugin.is_off]
    if (given := setting or module.setting) is None:
        given = setting_from_loader(
            *(module.trainer, module.model, module.seed, module.standardize_targets, ignored_label(module.loss)),
            read=module.learned_from,
        )
        module.standardize_targets &= given.training_targets is not None
    if (label := ignored_label(module.loss)) is not None:
        leaves_out = [replace(task, ignored=label) if task.kind == "classification" else task for task in given.tasks]
        given = replace(given, tasks=tuple(leaves_out))
    module.setting = given = replace(given, tasks=tuple(refined(module.loss, task) for task in given.tasks))
    facts = facts or _facts(module)
    given_parts: tuple[Any, ...] = (module.model, module.loss)
    module.others = [part for part in given_parts if isinstance(part, Option)]
    made = [kind for maker in (module.make_optimizer, module.make_scheduler) if (kind := _kind(maker)) is not None]
    speaking = [kind for kind in made if issubclass(kind, Option)]
    module.selection = Selection(
        module.plugins,
        given,
        others=[*module.others, *speaking],
        chosen=module.chosen,
        optimizer_class=_kind(module.make_optimizer),
        parts=module.parts,
        **facts,
    )
    check_selection(module.selection)
    for option in module.options:
        option.prepare(given)
    for plugin in implementers(module.plugins, "transform_model"):
        with own_draws(derive_seed(module.seed, "model", plugin.state_key), module.model), gating(module, plugin):
            module.model = plugin.transform_model(module.model)
    recorded, already = [part for option in module.options for part in option.recorded], is_compiled(module.model)
    module.recorded = Recording(recorded, stays=module.compiled or already)
    if already:
        torch.compiler.reset()  # what was compiled before knows nothing of layers that were put in
    cut = [f"{n} {what}" for n, what in ((module.parts, "parts a step"), (facts.get("devices", 1), "devices")) if n > 1]
    may_ignore = given.may_ignore or any(option.leaves_out for option in module.options)
    losses = {task.name: TaskLoss(module.loss, task, " and ".join(cut), may_ignore) for task in given.tasks}
    minimized: Mapping[str, Any] = {}
    if module.standardize_targets:
        module.model, minimized = standardized(module.model, given, losses, str(facts.get("precision")))
    module.takes_tokens = takes_tokens(module.model)
    list_hooks(module)
    module.task_losses = TaskLosses(losses, minimized, _combining(module))
    if module.hooks["aggregate"] and len(given.tasks) > 1 and (module.compiled or already):
        # its backward pass gives zeros and not None for what a task does not reach: a head would count as shared
        raise RecipeError(
            f"{module.hooks['aggregate'][0].state_key} cannot be combined with a compiled model (trainer.compile=true), which does not "
            f"tell the parameters that tasks share from those of one task: leave one of the two out"
        )
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


def _kind(maker: Any) -> type | None:
    """The class of what a maker makes: of `functools.partial(SGD, lr=0.1)`, and of a schedule of ours itself; None: not known."""
    kind = maker.func if isinstance(maker, partial) else maker
    return kind if isinstance(kind, type) else type(kind) if isinstance(kind, Option) else None


def list_hooks(module: Whole) -> None:
    """List who defines which hook; refuse two options for what one can do, and probabilities of what is no logit."""
    options = module.options
    module.hooks = {hook.name: implementers(options, hook.name) for hook in HOOKS}
    module.is_timed = any(option.when != ALWAYS for option in options)
    _check_hooks(module)


def list_hooks_of_optimizer(module: Whole, options: Sequence[Option]) -> None:
    """List what optimizer and schedule define, in place of those of the fit before; whatever stands for a technique stays."""
    before, module.of_optimizer = module.of_optimizer, list(options)
    for hook in HOOKS:
        kept = [each for each in module.hooks[hook.name] if all(each is not old for old in before)]
        module.hooks[hook.name] = [*implementers(options, hook.name), *kept]
    _check_hooks(module)


def _check_hooks(module: Whole) -> None:
    tasks = module.setting.tasks if module.setting else ()
    of_others = [task for task in tasks if task.kind == "classification" and not trains_logits(module.loss, task)]
    of_logits = [*module.hooks["predict"], *(option for option in module.options if option.needs_logits)]
    if of_logits and of_others:
        raise RecipeError(
            f"{of_logits[0].state_key} makes probabilities of logits, which {type(module.loss).__name__} does not train: take "
            f"loss=cross_entropy"
        )
    known = module.selection.others if module.selection else ()
    to_come = [] if module.of_optimizer else [option for option in known if isinstance(option, type)]
    for name in (hook.name for hook in HOOKS if hook.alone):
        defining = [*module.hooks[name], *implementers(to_come, name)]
        if made := [option for option in module.hooks[name] if option.for_finished]:
            module.hooks[name] = defining = made  # the checkpoint of a finished run holds what the others have left in it
        if len(defining) > 1:
            both = " and ".join(called(option) for option in defining)
            raise RecipeError(f"{both} both define {name}, and there can be one only: leave one of them out")


def _combining(module: Whole) -> Combine | None:
    """How a plugin makes one scalar of the losses of all tasks; None where none does."""
    if not module.hooks["combine"]:
        return None
    plugin = module.hooks["combine"][0]
    return lambda losses: plugin.combine(losses, module) if plugin.acts(module.step.progress) else total_of(losses)
