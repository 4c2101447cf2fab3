"""What a short training leaves: its weights, and a checkpoint from its middle."""

from __future__ import annotations

import shutil
from typing import Any

import torch

from plugins.shards import whole
from recipes.engine.checkpoint import BestAndLast
from recipes.engine.module import RecipeModule


class CopyingKeeper(BestAndLast):
    """Keeps the first checkpoint that was saved between two steps."""

    def on_train_batch_start(self, trainer: Any, *arguments: Any) -> None:
        """Copy it before a later one takes its place."""
        super().on_train_batch_start(trainer, *arguments)
        if self.every_n_steps and trainer.global_step == self.every_n_steps and trainer.is_global_zero:
            shutil.copy(self.last_path, self.folder.parent / "copy.ckpt")


def weights(module: RecipeModule) -> dict[str, torch.Tensor]:
    """All parameters and buffers of the model."""
    return {name: whole(value).clone() for name, value in module.model.state_dict().items()}


def parameters(module: RecipeModule) -> dict[str, torch.Tensor]:
    """All parameters of the model."""
    return {name: whole(value.detach()).clone() for name, value in module.model.named_parameters()}


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    """The names of tensors that differ in a bit, or that one alone has; extra buffers and layers without weights do not count."""
    return [name for name in first if name not in second or not torch.equal(first[name], second[name])] + [
        name for name in second if name not in first
    ]
