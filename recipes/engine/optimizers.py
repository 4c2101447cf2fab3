"""The optimizer of a module, with the wrappers and gradient transforms of its plugins, and its learning rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from plugins.base import OptimizerWrapper, Plugin, RecipeError, implementers, needs_closure
from recipes.engine.groups import parameter_groups
from recipes.engine.parts import Whole
from recipes.engine.schedules import check_schedule


def configure(module: Whole) -> tuple[Any, int]:
    """What Lightning is told of optimizer and schedule, and for how many steps the schedule was made; 0: nobody knows.

    Raises:
        RecipeError: there is nothing to train, or the optimizer asks for gradients as often as it likes beside what cannot bear it.
    """
    if not any(parameter.requires_grad for parameter in module.model.parameters()):
        raise RecipeError(f"{type(module.model).__name__} has no parameter that is trained: leave some with requires_grad=True")
    base = module.make_optimizer(parameter_groups(module.model, module.no_decay))
    wrappers = implementers(module.plugins, "wrap_optimizer")
    if needs_closure(base):
        _expect_one_closure(module, type(base).__name__, wrappers)
    if module.hooks["transform_gradient"]:
        base.register_step_pre_hook(_transforming(module))
    wrapped: Any = base
    for plugin in wrappers:
        wrapped = plugin.wrap_optimizer(wrapped)
    optimizer = wrapped if isinstance(wrapped, OptimizerWrapper) else OptimizerWrapper(wrapped)
    if module.make_scheduler is None:
        return optimizer, 0
    steps = module.trainer.estimated_stepping_batches
    total = max(1, int(steps)) if steps != float("inf") else 0
    scheduler = module.make_scheduler(optimizer, total)
    check_schedule(scheduler)
    name = f"lr-{type(base).__name__}"  # what callbacks want to know of it
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "name": name, "interval": "step"}}, total


def _expect_one_closure(module: Whole, name: str, wrappers: Sequence[Plugin]) -> None:
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
            for plugin in module.hooks["transform_gradient"]:
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
