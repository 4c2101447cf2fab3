"""The gap between training and validation, measured alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from plugins.base import Module, Plugin, Stage, larger_is_better
from plugins.inputs import some


def gap(training: Mapping[str, float], validation: Mapping[str, float]) -> dict[str, float]:
    """How much better training is than validation: the difference where larger is better, else the other way round."""
    return {
        name: (value - validation[name]) * (1 if larger_is_better(f"val/{name}") else -1)
        for name, value in training.items()
        if name in validation
    }


class GeneralizationGap(Plugin):
    """Measure how much better the model does on training data than on validation data.

    gap/acc = acc(training) − acc(validation) and gap/loss = loss(validation) − loss(training): both in evaluation mode, with
    the same weights, without augmentation, on equally many samples (all training samples where there are fewer). Costs a
    second validation. It takes the place of the gap/acc that each run has, whose training side is measured while training.

    Source: lecture A (generalization error).
    """

    stage = Stage.DIAGNOSTICS
    on_shards = True

    def __post_init__(self) -> None:
        """Nothing is counted yet."""
        self._samples = 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin to count."""
        self._samples = 0

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the validation samples of this process."""
        self._samples += len(some(batch[0]))

    def ruler(self, metric: str) -> Mapping[str, Any]:
        """Unlike the gap that each run has, whose training side is measured while training."""
        return {"mode": "evaluation"}

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Evaluate as many training samples, and take the differences."""
        samples = torch.tensor(self._samples, device=module.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(samples)
        training = module.evaluate_training(int(samples))
        validation = {name.removeprefix("val/"): value for name, value in metrics.items() if name.startswith("val/")}
        return {f"gap/{name}": value for name, value in gap(training, validation).items()}
