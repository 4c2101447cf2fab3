"""What a trained model needs beside its weights, and finds on a split: measured before each evaluation of a training that counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.base import Batch, RecipeError
from recipes.engine.lightning_private import loader_of
from recipes.engine.loading import batches_aside, clean_batches
from recipes.engine.parts import Whole

SPLITS = ("train", "val")


class Calibrated(nn.Module):
    """What options have found, as buffers: saved with the weights, and taken from a checkpoint whatever options there are now."""

    def put(self, owner: str, values: Mapping[str, Tensor]) -> None:
        """Keep what an option has found, by names of its own."""
        for name, value in values.items():
            self._keep(f"{owner}/{name}".replace(".", "_"), value.detach().clone())

    def of(self, owner: str) -> dict[str, Tensor]:
        """What an option has found, by names of its own; empty where it has not been asked."""
        own = f"{owner}/".replace(".", "_")
        return {name.removeprefix(own): value for name, value in self.named_buffers() if name.startswith(own)}

    def _keep(self, name: str, value: Tensor) -> None:
        self._buffers.pop(name, None)
        self.register_buffer(name, value)

    def _apply(self, fn: Any, recurse: bool = True) -> Calibrated:
        """Move what was found, and round none of it to 16 bits."""
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in kept.items():
            moved = self._buffers[name]
            assert moved is not None and value is not None
            if moved.dtype != value.dtype and not moved.is_meta:
                self._buffers[name] = value.to(moved.device)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *further: Any) -> None:
        self._buffers.clear()
        for name, value in state_dict.items():
            if name.startswith(prefix):
                self._keep(name.removeprefix(prefix), value.detach().clone())


def expect_splits(module: Whole) -> None:
    """Refuse a training without the split on which an option calibrates, before the first batch."""
    for option in module.hooks["calibrate"]:
        if option.calibrated_on not in SPLITS:
            raise RecipeError(f"{option.state_key} calibrates on {option.calibrated_on!r}, expected one of {', '.join(SPLITS)}")
        if option.calibrated_on == "val" and not module.trainer.enable_validation:
            raise RecipeError(f"{option.state_key} needs validation data: give the training some, or leave it out")


@torch.no_grad()
def calibrate(module: Whole) -> None:
    """Have options find what they need, with the weights in place that are evaluated, all in evaluation mode."""
    for option in module.hooks["calibrate"]:
        with module.trainer.precision_plugin.forward_context():
            found = option.calibrate(module, _batches(module, option.calibrated_on))
        module.calibrated.put(option.state_key, found or {})


def training_loader(trainer: Any) -> Any:
    """The loader of a training, also where its loop has not begun."""
    return loader_of(trainer.fit_loop) if trainer.train_dataloader is None else trainer.train_dataloader


def _batches(module: Whole, split: str) -> Iterator[Batch]:
    """The clean samples of a split that this process has, read when they are asked for."""
    trainer = module.trainer
    if split == "train":
        batches = clean_batches(training_loader(trainer), sys.maxsize)
    else:
        loader = trainer.val_dataloaders
        batches = batches_aside(loader_of(trainer.fit_loop.epoch_loop.val_loop) if loader is None else loader)
    for data in batches:
        yield module.as_batch(module.transfer_batch_to_device(data, module.device, 0))
