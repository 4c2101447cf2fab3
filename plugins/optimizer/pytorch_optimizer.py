"""Any optimizer of the library pytorch_optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch.optim import Optimizer

from plugins.base import RecipeError
from plugins.optimizer._named import NamedOptimizer, expect_usable


class PytorchOptimizer(NamedOptimizer):
    """An optimizer of the library pytorch_optimizer by its name, with the library's defaults.

    It is tried out on a small layer first. Refused are those that are made of a model, make an update of several passes, need second derivatives
    or parameter groups of their own (muon: take optimizer=muon), or evaluate other weights than they train.

    Args:
        params: parameters or groups of them.
        name: such as adabelief, ademamix, prodigy, in letters of any size.
        lr: learning rate, ≥ 0; None: its own.
        weight_decay: as it takes it, ≥ 0; most have a setting `weight_decouple`.
        settings: what else it takes, by name.

    Raises:
        RecipeError: a name that is none, with the nearest; one that cannot be right here, with the reason; a parameter out of range;
            pytorch_optimizer is not there.
        Refusal: trainer=fsdp; rates by group where it has one for all; several processes where it draws at random.

    Source: Kim, "pytorch_optimizer", https://github.com/kozistr/pytorch_optimizer.
    """

    package = extra = "pytorch_optimizer"

    def __init__(
        self,
        params: Iterable[Any],
        name: str = "adabelief",
        lr: float | None = None,
        weight_decay: float = 0.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(params, name, lr, weight_decay, settings)

    @classmethod
    def names(cls) -> Sequence[str]:
        """Those that the library lists."""
        found: Sequence[str] = cls.library().get_supported_optimizers()
        return found

    @classmethod
    def maker(cls, name: str, given: Mapping[str, Any]) -> Callable[[list[Any]], Optimizer]:
        """The class, with what it is given; what it would not take note of is refused."""
        kind = cls.library().load_optimizer(name)
        expect_usable(kind)
        if hasattr(kind, "first_step"):
            raise RecipeError("it makes an update of several passes: take +wrapper=sam")
        if "muon" in name:
            raise RecipeError("it needs parameter groups of its own: take optimizer=muon")
        taken = inspect.signature(kind).parameters
        if unknown := [key for key, value in given.items() if key not in taken and (key != "weight_decay" or value)]:
            known = ", ".join(key for key in taken if key not in ("params", "kwargs", "lr", "weight_decay"))
            raise RecipeError(f"it has no {unknown[0]}; it has {known}")
        return partial(kind, **{key: value for key, value in given.items() if key in taken})
