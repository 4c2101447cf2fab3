"""Any optimizer of a library by its name: right in a run, or refused in a line."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from plugins.base import RecipeError, Refusal, Selection, expect
from plugins.optimizer._library import OfLibrary, expect_numbers
from plugins.optimizer._trial import try_out

NEAR = 3  # names that are told of one that there is not


def expect_usable(kind: type[Optimizer]) -> None:
    """Accept the class of an optimizer that is made of parameters and makes its steps by one gradient each.

    Raises:
        RecipeError: the class of another one, with the reason.
    """
    if next(iter(inspect.signature(kind).parameters)) != "params":
        raise RecipeError("it is made of a model or of another optimizer, and here it gets parameters")
    if callable(getattr(kind, "eval", None)):
        raise RecipeError("it evaluates other weights than it trains, by its train() and eval(): take optimizer=schedule_free")
    if "hessian" in inspect.signature(kind.step).parameters:
        raise RecipeError("it needs second derivatives, for which backward passes keep no graph here")


class NamedOptimizer(OfLibrary):
    """An optimizer of a library by its name.

    It is tried out for some steps on a small layer before it trains anything. A subclass tells the `names` that there are and what they stand for.
    """

    def __init__(
        self,
        params: Iterable[Any],
        name: str,
        lr: float | None,
        weight_decay: float,
        settings: Mapping[str, Any] | None,
    ) -> None:
        if lr is not None:
            expect_numbers(lr=lr)
        expect_numbers(weight_decay=weight_decay)
        expect(
            settings is None or isinstance(settings, Mapping), "settings", "values by name, such as {momentum: 0.9}", settings
        )
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in (settings or {}).items()}
        if taken := given.keys() & {"name", "lr", "weight_decay"}:
            raise RecipeError(
                f"settings has {min(taken)}, which stands beside it: type optimizer.{min(taken)}={given[min(taken)]}"
            )
        if lr is not None:
            given["lr"] = lr
        names = self.names()
        if str(name).lower() not in names:
            near = difflib.get_close_matches(str(name).lower(), names, NEAR)
            hint = f"; did you mean {' or '.join(near)}?" if near else f", such as {names[0]}"
            raise RecipeError(f"name must be an optimizer of {self.extra}{hint}, got {name!r}")
        try:
            make = self.maker(str(name).lower(), {**given, "weight_decay": weight_decay})
            self.trial = try_out(make)
        except RecipeError as error:
            raise RecipeError(f"name={name} of {self.extra} cannot be used: {error}") from None
        except Exception as error:  # whatever the library raises
            text = " ".join(str(error).split())
            raise RecipeError(f"name={name} of {self.extra} cannot be used: {type(error).__name__}: {text}") from None
        self.name = name
        super().__init__(make(list(params)))

    @classmethod
    def names(cls) -> Sequence[str]:
        """The names that there are, in small letters."""
        raise NotImplementedError

    @classmethod
    def maker(cls, name: str, given: Mapping[str, Any]) -> Callable[[list[Any]], Optimizer]:
        """What makes the optimizer of parameter groups.

        Raises:
            RecipeError: it cannot be right here.
        """
        raise NotImplementedError

    def check(self, selection: Selection) -> None:
        """Refuse several processes where each would draw something else, and rates by group where there is one for all."""
        told = f"{self.state_key}: {self.name}"
        if self.trial.draws and selection.devices > 1:
            raise Refusal(
                f"{told} draws at random, on each process something else, so their weights would part: train on one device, or take another one"
            )
        if not self.trial.rates_apart and len({float(group["lr"]) for group in self.param_groups}) > 1:
            raise Refusal(
                f"{told} has one learning rate for all parameters: leave optimizer.layer_decay and optimizer.rates out"
            )
