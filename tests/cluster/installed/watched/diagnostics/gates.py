"""A run that a test can hold at a step or in a validation, whatever the machine's speed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Batch, Module, Phase, Plugin, Stage


class Gates(Plugin):
    """In the folder $GATES: waits while there is a file `step-17` or `validation-17`, and leaves the weights' digest.

    The steps count over phases. Each rank leaves `step-17.reached-SEED-RANK` before it waits, and `weights-SEED-RANK` in the end.

    Args:
        again: steps of a second phase, from fresh weights on the training and the validation data; 0: there is none.
    """

    stage = Stage.DIAGNOSTICS

    def __init__(self, again: int = 0) -> None:
        self.again = again

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Wait within a step."""
        self._pass("step", module)

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Wait within a validation."""
        if split == "val":
            self._pass("validation", module)
        return {}

    def next_phase(self, result: Mapping[str, Any]) -> Phase | None:
        """Ask for the second phase."""
        return Phase("again", max_steps=self.again, fresh=True, all_data=True) if self.again and result["phases"] == 1 else None

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Leave what tells the weights of one rank from those of another."""
        digest = hashlib.sha256()
        for value in pl_module.model.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        self._leave("weights", pl_module).write_text(digest.hexdigest())

    @staticmethod
    def _leave(name: str, module: Any) -> Path:
        return Path(os.environ["GATES"], f"{name}-{module.seed}-{module.trainer.global_rank}")

    def _pass(self, kind: str, module: Any) -> None:
        gate = Path(os.environ["GATES"], f"{kind}-{module.steps_done + module.phase['steps']}")
        if gate.exists():
            self._leave(f"{gate.name}.reached", module).touch()
        while gate.exists():
            time.sleep(0.05)
