"""Running statistics of norm layers that belong to given weights: measured, not averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def measured_norms(model: nn.Module) -> list[_NormBase]:
    """The norm layers that measure running statistics."""
    return [layer for layer in model.modules() if isinstance(layer, _NormBase) and layer.running_mean is not None]


@contextmanager
def measuring(layers: Iterable[_NormBase]) -> Iterator[None]:
    """Measure the statistics of norm layers anew, as the mean over the batches that pass within, on all processes.

    As torch's `update_bn`, but all other layers stay in the mode they are in: what is dropped in training is not dropped in an
    evaluation. Counters of batches stay what they were.
    """
    layers = list(layers)
    counters: list[Any] = [layer.num_batches_tracked for layer in layers]
    kept = [
        (layer, layer.momentum, layer.training, None if counter is None else counter.clone())
        for layer, counter in zip(layers, counters, strict=True)
    ]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum, layer.training = None, True  # the mean over batches, each alike
    try:
        yield
        if dist.is_available() and dist.is_initialized():  # each process has as many batches
            for layer in layers:
                for values in (layer.running_mean, layer.running_var):
                    assert values is not None
                    dist.all_reduce(values)
                    values /= dist.get_world_size()
    finally:
        for layer, momentum, training, counter in kept:
            layer.momentum, layer.training = momentum, training
            if counter is not None:
                layer.num_batches_tracked.copy_(counter)  # type: ignore[union-attr]
