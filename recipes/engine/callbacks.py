"""Callbacks that are not techniques: Lightning's own, and anybody's. They come to the model once it is built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from torch import nn

from plugins.base import Plugin, RecipeError, implementers
from plugins.norm_statistics import measured_norms
from recipes.config.callback_names import REFUSED
from recipes.engine.lightning_private import saves_after_validation


class BuildFirst(L.Callback):
    """Has the module built before the setup of any other callback, which may copy the model or look into it.

    Lightning sets callbacks up before the module, so this stands in front of all until the module itself is set up.
    """

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Build."""
        pl_module.set_up(stage)


class Settle(L.Callback):
    """Has options leave in the model what was trained, before any callback hears of the end: averages, then what chooses of them."""

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Call the hook."""
        for option in pl_module.hooks["settle"]:
            option.settle(pl_module)


def stand_first(callbacks: list[L.Callback]) -> None:
    """Put what builds the module in front of all callbacks, in place."""
    callbacks[:] = [BuildFirst(), *(callback for callback in callbacks if not isinstance(callback, BuildFirst))]


def _keeps_other_weights_than_measured(callback: L.Callback) -> bool:
    """Whether a callback of Lightning's saves by a validation's metric what the model has once the validation is over."""
    return isinstance(callback, ModelCheckpoint) and bool(callback.monitor) and saves_after_validation(callback)


def check_callbacks(callbacks: Iterable[L.Callback], plugins: Iterable[Plugin], model: nn.Module) -> None:
    """Refuse a callback of Lightning's that cannot be right here, or not beside these techniques or with this model."""
    for callback in callbacks:
        names = [kind.__name__ for kind in type(callback).__mro__ if kind.__module__.startswith("lightning.")]
        if refused := next((name for name in names if name in REFUSED), None):
            raise RecipeError(f"{type(callback).__name__} cannot be used here: {REFUSED[refused]}")
        averaging = next(iter(implementers(plugins, "evaluation_weights")), None)
        if averaging and isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            raise RecipeError(
                f"{type(callback).__name__} and {averaging.state_key} both average the weights: leave one of them out"
            )
        if averaging and _keeps_other_weights_than_measured(callback):
            raise RecipeError(
                f"{type(callback).__name__} would keep other weights than those of {averaging.state_key}, which are measured: "
                f"write ModelCheckpoint(save_on_train_epoch_end=False)"
            )
        if isinstance(callback, StochasticWeightAveraging) and measured_norms(model):
            raise RecipeError(
                "StochasticWeightAveraging cannot be used with batch norm here: it measures the statistics anew in an epoch that "
                "only automatic optimization leaves without updates; take EMAWeightAveraging or averaging/ema"
            )


def defines(callback: L.Callback, hook: str) -> bool:
    """Whether a callback does something in a hook; some have it in the instance."""
    return hook in vars(callback) or getattr(type(callback), hook) is not getattr(L.Callback, hook)
