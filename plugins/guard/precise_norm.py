"""Running statistics of norm layers that belong to the weights that are evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L
from torch import nn

from plugins.base import Batch, Module, Plugin, RecipeError, Stage
from plugins.norm_statistics import measure_norms, measured_norms


class PreciseNorm(Plugin):
    """Measure the running statistics of norm layers anew, for the weights that are evaluated, before each evaluation in training and at its end.

    μ = mean and σ² = mean of the means and variances of all batches of the clean training split, in place of running averages in which
    older weights have a part. Training goes on from them; it uses those of its batches. Layers that are not trained keep theirs. Costs a
    forward pass over the training split each time; `averaging=swa` and `optimizer=schedule_free` do as much by themselves.

    Raises:
        RecipeError: no norm layer in the model that has running statistics.

    Source: Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.
    """

    stage = Stage.GUARD
    on_named_inputs = True
    on_class_maps = True
    on_shards = True  # it sees no weights, and an evaluation puts the model together
    calibrated_on = "train"

    def __post_init__(self) -> None:
        """No layer is known yet."""
        self._norms: list[Any] = []
        self._resting: set[int] = set()  # those that are not trained, by id

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, but refuse one without anything to measure."""
        if not measured_norms(model):
            raise RecipeError(
                f"guard/precise_norm measures running statistics of norm layers, and {type(model).__name__} has none: type "
                f"normalization=batch, or leave it out"
            )
        return model

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Find the layers."""
        self._norms = measured_norms(pl_module.model)
        self._see()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """See which of them are trained: some may thaw on the way."""
        self._see()

    def _see(self) -> None:
        self._resting = {id(layer) for layer in self._norms if not layer.training}

    def calibrate(self, module: Module, batches: Iterable[Batch]) -> None:
        """Measure with the weights that are in place."""
        if not module.trainer.sanity_checking:  # nothing is trained yet, nor known of what rests
            measure_norms(module, batches, self._resting)
