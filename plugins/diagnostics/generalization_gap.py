"""The gap between training and validation, measured alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from plugins.base import Plugin, Stage


def gap(training: Mapping[str, float], validation: Mapping[str, float]) -> dict[str, float]:
    """Training minus validation metric, for each metric that both have."""
    return {name: value - float(validation[name]) for name, value in training.items() if name in validation}


class GeneralizationGap(Plugin):
    """Log how much better the model does on training data than on validation data.

    gap/acc = acc(training) − acc(validation), and gap/loss alike: both in evaluation mode, with the same weights, without
    augmentation, on equally many samples (all training samples where there are fewer). Costs a second validation.

    Source: lecture A (generalization error).
    """

    stage = Stage.DIAGNOSTICS

    def __init__(self) -> None:
        self._samples = 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin to count."""
        self._samples = 0

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the validation samples."""
        self._samples += len(batch[0])

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Evaluate as many training samples, and log the differences."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        samples = trainer.strategy.reduce(torch.tensor(float(self._samples), device=pl_module.device), reduce_op="sum")
        training = pl_module.evaluate_training(int(samples))
        validation = {
            name.removeprefix("val/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        for name, value in gap(training, validation).items():
            pl_module.record(f"gap/{name}", value)
