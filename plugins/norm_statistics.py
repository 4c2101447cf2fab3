"""Running statistics of norm layers that belong to given weights: measured, not averaged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from plugins.data import Batch
from plugins.module import Module


def measured_norms(model: nn.Module) -> list[_NormBase]:
    """The norm layers that measure running statistics over batches; those of each sample take no mean over all of them."""
    measured = [layer for layer in model.modules() if isinstance(layer, _NormBase) and not isinstance(layer, _InstanceNorm)]
    return [layer for layer in measured if layer.running_mean is not None]


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


def measure_norms(module: Module, batches: Iterable[Batch], resting: Collection[int]) -> None:
    """Measure the statistics of a module's norm layers for the weights that are in place.

    Args:
        module: in evaluation mode.
        batches: of the split on which they are measured; not read where there is no layer.
        resting: the layers that keep their statistics, by id.
    """
    layers = [layer for layer in measured_norms(module.model) if id(layer) not in resting]
    if not layers:
        return
    with measuring(layers):
        for batch in batches:
            if len(batch):
                module.outputs(batch.x)
