"""Gradual unfreezing (Howard & Ruder, 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import lightning as L
from torch import nn

from plugins.base import declare
from plugins.finetuning._freezing import LATE, Freezing, by_depth, called


class GradualUnfreezing(Freezing):
    """Train the head first, and with each `every` epochs one more layer or block.

    Block k joins after k · every epochs, the head being block 0. With `head_first` the block before the head comes next, with
    `input_first` that at the input. Until then a block keeps its weights, and its norm layers their statistics. Blocks are those of
    `optimizer.layer_decay`: a layer with weights, or one block of a row of them. Logged: `blocks`, how many are trained.

    Raises:
        RecipeError: a model of one layer; training data without an end.
        Refusal: an optimizer that counts the steps of all parameters together: schedule_free, timm, pytorch_optimizer, adan, soap.

    Source: Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    """

    refuses = LATE

    direction: ClassVar[str]  # `order`, which is a hook's name

    every: float = declare.number("epochs after which one more block is trained", default=1.0, above=0)
    order: str = declare.choice(  # type: ignore[assignment]
        "head_first", "input_first", default="head_first", help="which block comes next", kept="direction"
    )

    def starts(self, model: nn.Module) -> Mapping[str, float]:
        """k · every of block k."""
        head, *others = by_depth(model, self.state_key).values()
        blocks = [head, *(others if self.direction == "head_first" else reversed(others))]
        told = [f"{called(block)} from epoch {number * self.every:g} on" for number, block in enumerate(blocks)]
        self.remarks = [f"trains {', '.join(told)}"]
        return {name: number * self.every for number, block in enumerate(blocks) for name in block}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Thaw the next block if it is due."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.record(pl_module, "blocks", float(self._stage or 0))
