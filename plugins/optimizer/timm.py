"""Any optimizer of timm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch.optim import Optimizer

from plugins.base import RecipeError
from plugins.optimizer._library import OfTimm
from plugins.optimizer._named import NamedOptimizer, expect_usable


class TimmOptimizer(OfTimm, NamedOptimizer):
    """An optimizer of timm by its name, with timm's defaults for that name.

    It is tried out on a small layer first. Refused are those that need second derivatives, or a package beside timm that is not there.

    Args:
        params: parameters or groups of them.
        name: such as nadamw, adopt, lambw, madgrad, kron.
        lr: learning rate, ≥ 0; None: its own.
        weight_decay: as it takes it, ≥ 0; of many there is a name more, with a w at the end, that takes it apart from the gradient.
        settings: what else it takes, by name.

    Raises:
        RecipeError: a name that is none, with the nearest; one that cannot be right here, with the reason; a parameter out of range; timm is not there.
        Refusal: trainer=fsdp; rates by group where it has one for all.

    Source: Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models.
    """

    def __init__(
        self,
        params: Iterable[Any],
        name: str = "nadamw",
        lr: float | None = None,
        weight_decay: float = 0.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(params, name, lr, weight_decay, settings)

    @classmethod
    def names(cls) -> Sequence[str]:
        """Those that timm lists."""
        found: Sequence[str] = cls.library().list_optimizers()
        return found

    @classmethod
    def maker(cls, name: str, given: Mapping[str, Any]) -> Callable[[list[Any]], Optimizer]:
        """timm's factory, given parameter groups."""
        timm = cls.library()
        if timm.get_optimizer_info(name).second_order:
            raise RecipeError("it needs second derivatives, for which backward passes keep no graph here")
        expect_usable(timm.get_optimizer_class(name, bind_defaults=False))
        return partial(timm.create_optimizer_v2, opt=name, **given)
