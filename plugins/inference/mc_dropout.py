"""Monte Carlo dropout (Gal & Ghahramani, 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from plugins.base import Batch, Module, Plugin, RecipeError, Stage, expect_count
from plugins.inference._probabilities import entropy, probabilities
from plugins.sites import DROPOUTS, evaluation_mode


class MCDropout(Plugin):
    """Predict by the mean of several passes with dropout on.

    p(y | x) = 1/T · Σₜ softmax(f(x; mₜ)) with a fresh dropout mask mₜ in each of T passes; all other layers are in
    evaluation mode. For a regression the mean of the outputs. The predictive entropy −Σ p ln p, in nats, is the metric
    `entropy`: how unsure the model is.

    Args:
        samples: number T of passes, ≥ 1.

    Raises:
        RecipeError: samples out of range; no dropout layer in the model.

    Source: Gal & Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016; lecture D.
    """

    stage = Stage.INFERENCE

    def __init__(self, samples: int = 20) -> None:
        expect_count("samples", samples)
        self.samples = samples

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, but refuse one without dropout."""
        if not any(isinstance(module, DROPOUTS) for module in model.modules()):
            raise RecipeError(
                f"inference/mc_dropout needs dropout layers and {type(model).__name__} has none: train with +regularizer=dropout"
            )
        return model

    def predict(self, module: Module, x: Tensor) -> dict[str, Tensor]:
        """The mean prediction."""
        with evaluation_mode(module.model):
            layers = [layer for layer in module.model.modules() if isinstance(layer, DROPOUTS)]
            try:
                for layer in layers:
                    layer.training = True
                passes = [probabilities(module.outputs(x), module.setting) for _ in range(self.samples)]
            finally:
                for layer in layers:
                    layer.training = False
        return {task: torch.stack([one[task] for one in passes]).mean(0) for task in passes[0]}

    directions: ClassVar[Mapping[str, str]] = {"entropy": "min"}

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """The entropy of the mean prediction, averaged over the tasks that are classifications."""
        kinds = {task.name: task.kind for task in module.setting.tasks}
        predicted = probabilities(outputs, module.setting)  # of log-probabilities: the mean prediction again
        entropies = [entropy(p) for task, p in predicted.items() if kinds[task] == "classification"]
        return {"entropy": torch.stack(entropies).mean(0)} if entropies else {}
