"""Passes through a model beside the one that is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from plugins.sites import kept_buffers


@contextmanager
def further_pass(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Whatever passes through the model within draws from a stream of its own, as dropout does, and leaves no trace.

    Layers behave as in training. Buffers, such as running statistics, and the global random state are put back; the latter is seeded from
    `generator`, as of :meth:`Module.generator`. Gradients lead through such a pass as through any other.
    """
    device = generator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), kept_buffers(model):
        torch.manual_seed(generator.initial_seed())
        yield


@contextmanager
def differentiable_twice(recurrent: bool) -> Iterator[None]:
    """Attention, and with `recurrent` the layers so called, by operations that have second derivatives."""
    fused = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with sdpa_kernel(SDPBackend.MATH), fused:
        yield


@contextmanager
def look(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """As :func:`further_pass`, without gradients: what a model says in training, before it is trained on that."""
    torch.clear_autocast_cache()
    try:
        with torch.no_grad(), further_pass(model, generator):
            yield
    finally:
        # copies of weights in low precision that were made without gradients would cut the training pass off
        torch.clear_autocast_cache()
