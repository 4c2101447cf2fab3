"""How large the weights are."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from plugins.base import Module, Plugin, Stage, expect_count
from plugins.parameters import weights_of


class WeightSize(Plugin):
    """Log the norm of all weights together, without biases and norm layers.

    ‖θ‖₂ after a step.

    Args:
        every_n_steps: steps between two looks, ≥ 1.
    """

    stage = Stage.DIAGNOSTICS

    def __init__(self, every_n_steps: int = 10) -> None:
        expect_count("every_n_steps", every_n_steps)
        self.every_n_steps = every_n_steps

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Look, and change nothing."""
        if module.steps_done % self.every_n_steps == 0:
            norms = [weight.norm() for weight in weights_of(module.model)]
            self.record(module, "norm", torch.stack(norms).norm(), at_once=True)
