"""The optimizer of a module, with the wrappers and gradient transforms of its plugins, and its learning rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import ALWAYS, OptimizerWrapper, Option, RecipeError, called, needs_closure
from recipes.engine.building import list_hooks_of_optimizer
from recipes.engine.callbacks import Settle
from recipes.engine.groups import make_with_groups, parameter_groups
from recipes.engine.parts import Whole
from recipes.engine.schedules import check_schedule, tell_of_warmup


def configure(module: Whole) -> tuple[Any, int]:
    """What Lightning is told of optimizer and schedule, and for how many steps the schedule was made; 0: nobody knows.

    Raises:
        RecipeError: there is nothing to train, or the optimizer asks for gradients as often as it likes beside what cannot bear it.
    """
    if not any(parameter.requires_grad for parameter in module.model.parameters()):
        raise RecipeError(f"{type(module.model).__name__} has no parameter that is trained: leave some with requires_grad=True")
    _expect_no_other_parameters(module)
    selection = module.selection
    assert selection is not None
    speaking: list[Option | type[Option]] = [
        *module.plugins,
        *module.others,
        *(each for each in selection.others if isinstance(each, type)),
    ]
    base = make_with_groups(module.make_optimizer, parameter_groups(module.model, module.rules, speaking))
    made: tuple[Any, ...] = (base, module.make_scheduler)
    list_hooks_of_optimizer(module, [each for each in made if isinstance(each, Option)])
    if module.hooks["settle"]:  # now that those of the optimizer are known
        module.trainer.callbacks.insert(0, Settle())  # type: ignore[attr-defined]
    wrappers = module.hooks["wrap_optimizer"]
    if needs_closure(base):
        _expect_one_closure(module, type(base).__name__, wrappers)
    if module.hooks["transform_gradient"]:
        base.register_step_pre_hook(_transforming(module))
    wrapped: Any = base
    for plugin in wrappers:
        outer = plugin.wrap_optimizer(wrapped)
        wrapped = outer if plugin.when == ALWAYS else Timed(outer, wrapped, partial(_acts, module, plugin))
    optimizer = wrapped if isinstance(wrapped, OptimizerWrapper) else OptimizerWrapper(wrapped)
    steps = module.trainer.estimated_stepping_batches  # -1: epochs of a loader that does not tell how long they are
    total = max(1, int(steps)) if steps not in (-1, float("inf")) else 0
    scheduler = None if module.make_scheduler is None else module.make_scheduler(optimizer, total)
    _check(module, base, scheduler, total)
    if scheduler is None:
        return optimizer, total
    check_schedule(scheduler, module.trainer)
    tell_of_warmup(module.make_scheduler, total)
    name = f"lr-{type(base).__name__}"  # what callbacks want to know of it
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "name": name, "interval": "step"}}, total


def _expect_no_other_parameters(module: Whole) -> None:
    """Refuse a loss with parameters that would be trained, since only those of the model are."""
    own = {id(parameter) for parameter in module.model.parameters()}
    of_loss = module.loss.named_parameters() if isinstance(module.loss, nn.Module) else ()
    for name, parameter in of_loss:
        if parameter.requires_grad and id(parameter) not in own:
            raise RecipeError(
                f"{name} of the loss {type(module.loss).__name__} is a parameter, and only those of the model are trained: put it into the "
                f"model, or give it requires_grad=False"
            )


def _check(module: Whole, optimizer: Optimizer, scheduler: Any, total: int) -> None:
    """Ask optimizer and schedule what they say of the whole, now that they exist, and options for times that there are."""
    selection = module.selection
    assert selection is not None
    objects = [*module.others, *module.of_optimizer]
    full = replace(selection, others=objects, optimizer=optimizer, scheduler=scheduler, total_steps=total or None)
    for option in module.of_optimizer:
        option.prepare(selection.setting)
        option.check(full)
    for option in module.options:
        if option.when != ALWAYS and not total:
            raise RecipeError(
                f"{called(option)}: when={list(option.when)} is a share of the training, which has no end: set max_epochs or max_steps"
            )


def _acts(module: Whole, option: Option) -> bool:
    return bool(option.acts(module.step.progress))


class Timed(OptimizerWrapper):
    """A wrapper that is passed by in the steps in which its option does not act."""

    def __init__(self, wrapper: Optimizer, inner: Optimizer, acts: Callable[[], bool]) -> None:
        super().__init__(wrapper)
        self.inner, self.acts = inner, acts

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update, with the wrapper or without."""
        return OptimizerWrapper(self.optimizer if self.acts() else self.inner).step(closure)


def _expect_one_closure(module: Whole, name: str, wrappers: Sequence[Option]) -> None:
    """Refuse what cannot be right beside an optimizer that decides itself how often it asks for gradients."""
    why = f"{name} asks for gradients several times a step"
    if wrappers:
        raise RecipeError(f"{why}, and so does {wrappers[0].state_key}: leave it out, or take another optimizer")
    if str(module.trainer.precision) == "16-mixed":
        raise RecipeError(f"{why}, which the scaled gradients of precision 16-mixed cannot: take bf16-mixed or 32-true")
    if module.trainer.world_size > 1:
        raise RecipeError(f"{why}, as often as the loss of each process tells, so they would wait for each other: train on one")


def _transforming(module: Whole) -> Callable[..., Any]:
    """A hook before an update: it transforms the gradients, or has them transformed each time the optimizer asks for them."""

    def hook(optimizer: Optimizer, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        def transform() -> None:
            parameters: list[nn.Parameter] = [each for group in optimizer.param_groups for each in group["params"]]
            for plugin in module.acting("transform_gradient"):
                plugin.transform_gradient(module, parameters)

        closure = named.get("closure", arguments[1] if len(arguments) > 1 else None)
        if closure is None:
            transform()
            return None

        def transformed() -> Any:
            loss = closure()
            transform()
            return loss

        return arguments[:1], {**named, "closure": transformed}

    return hook
