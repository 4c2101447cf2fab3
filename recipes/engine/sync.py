"""What processes that train together share beside gradients: buffers, and statistics of norm layers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn

from plugins.sites import running_statistics, written


def share_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of the first one: those of norm layers are the same already, others may not be."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for buffer in written(model.buffers()):
        by_type.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_type.values():
        together = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(together, 0)
        for buffer, values in zip(buffers, together.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def share_statistics(model: nn.Module, processes: int) -> None:
    """Average the running statistics of norm layers over the processes, so that all evaluate, and save, one model.

    Those of layers in evaluation mode are the same already, and stay as they are: a mean of three equal numbers may be rounded.
    """
    if statistics := running_statistics(model):  # as they are now: a forward pass may have replaced them
        flat = torch.cat([numbers.flatten() for numbers in statistics])
        dist.all_reduce(flat)
        pieces = (flat / processes).split([numbers.numel() for numbers in statistics])
        for numbers, piece in zip(statistics, pieces, strict=True):
            numbers.copy_(piece.view_as(numbers))


def block_reduction(trainer: L.Trainer, last: bool) -> AbstractContextManager[Any]:
    """Around a backward pass that is not the last of a step: gradients are averaged over the processes once."""
    if last or trainer.world_size == 1:
        return nullcontext()
    return trainer.strategy.block_backward_sync()  # type: ignore[attr-defined]


def averaged(values: Tensor, processes: int) -> Tensor:
    """The mean of each number over the processes, which all ask at the same time."""
    if processes > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= processes
    return values
