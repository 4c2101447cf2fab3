"""An optimizer around another one, for techniques that make an update of several passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.errors import RecipeError


@lru_cache(maxsize=64)
def _closure_of(kind: type[Optimizer]) -> inspect.Parameter | None:
    return inspect.signature(kind.step).parameters.get("closure")


def closure_of(optimizer: Optimizer) -> inspect.Parameter | None:
    """The parameter by which an optimizer's step takes a closure; None where it takes none."""
    return _closure_of(type(optimizer))  # type: ignore[arg-type]


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether an optimizer cannot step without a closure, which it evaluates several times, as L-BFGS does."""
    found = closure_of(optimizer)
    return found is not None and found.default is inspect.Parameter.empty


class OptimizerWrapper(Optimizer):
    """An optimizer around another one: it shares parameter groups and state, so schedulers and checkpoints see one optimizer.

    A subclass redefines `gradients(closure)`: which gradient the update takes. Each call of `closure()` clears the gradients, runs
    forward and backward on one and the same batch with the same random numbers, and returns the loss. It is handed on to the optimizer
    inside as its closure, so wrappers around wrappers compose, and one inside may ask for it as often as it likes. A subclass that
    does something beside the update redefines `step(closure)` and calls `super().step(closure)`. What the wrapper does not have, such
    as hooks, is that of the wrapped optimizer. Copies and pickles are like those of torch's optimizers: they have no hooks.

    `Plugin.wrap_optimizer` makes it, once, when parameters are on their device and cut up, and before the scheduler is made.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        # torch's own constructor is left out on purpose: it would make parameter groups of its own.
        self.optimizer = optimizer
        self._hook_for_profile()

    def _hook_for_profile(self) -> None:
        self._zero_grad_profile_name = f"Optimizer.zero_grad#{type(self).__name__}.zero_grad"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "optimizer" not in self.__dict__:  # as while a copy is made
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        return getattr(self.optimizer, name)

    def __getstate__(self) -> dict[str, Any]:
        # a scheduler puts a step of its own into the instance, which belongs to this optimizer alone
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def gradients(self, closure: Callable[[], Tensor]) -> Tensor:
        """Leave the gradient that the update takes in `parameter.grad`, and the weights as they are; the loss before the update."""
        return closure()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update, that of the optimizer inside, by the gradients of this wrapper.

        Raises:
            RecipeError: a wrapper with gradients of its own gets no closure.
        """
        if closure is None:
            if type(self).gradients is not OptimizerWrapper.gradients:
                raise RecipeError(f"{type(self).__name__} needs gradients of its own: call optimizer.step(closure)")
            return self.optimizer.step()  # type: ignore[return-value]
        gradients = partial(self.gradients, closure)
        if closure_of(self.optimizer) is not None:
            return self.optimizer.step(gradients)  # type: ignore[arg-type, return-value]
        loss = gradients()
        self.optimizer.step()
        return loss

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's parameter groups."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """The wrapped optimizer's state."""
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The wrapped optimizer's defaults."""
        return self.optimizer.defaults

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that are updated."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to the wrapped optimizer."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state; a wrapper with a state of its own adds to it."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.optimizer.load_state_dict(state_dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.optimizer!r})"
