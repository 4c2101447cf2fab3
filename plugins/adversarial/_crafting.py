"""Passes through a model that leave no trace, in which adversarial examples are crafted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from plugins.adversarial._ascent import Loss
from plugins.base import Module
from plugins.input_gradients import light_input_gradients
from plugins.passes import further_pass
from plugins.sites import evaluation_mode


def attacked_loss(module: Module, targets: Mapping[str, Tensor], weight: Mapping[str, Tensor] | None = None) -> Loss:
    """The objective of all tasks as a function of the inputs, times the power of two by which its mean is about the sum over samples.

    `weight` is that of each sample in what is minimized, by task; what has none is not raised.
    """
    return lambda x: module.objective(module.outputs(x), targets, weight) * 2.0 ** (len(x) - 1).bit_length()


def resolution(x: Tensor) -> float:
    """How far apart numbers next to 1 are in a pass of these inputs, in mixed precision or that of the inputs themselves."""
    kind = x.device.type
    reduced = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return max(torch.finfo(each).eps for each in (reduced, x.dtype))


@contextmanager
def crafting(model: nn.Module, eval_mode: bool, generator: torch.Generator) -> Iterator[None]:
    """Gradients by inputs on, and whatever passes through the model within leaves no trace: no statistics, no random numbers.

    With `eval_mode` the model is in evaluation mode; without, its layers behave as in training, dropout draws from a
    stream of its own, and buffers such as running statistics are put back.
    """
    # Autocast keeps low-precision copies of the weights: one made without gradients would cut the training pass off.
    torch.clear_autocast_cache()
    mode = evaluation_mode(model) if eval_mode else further_pass(model, generator)
    try:
        with torch.inference_mode(False), torch.enable_grad(), mode, light_input_gradients(model, weights=False):
            yield
    finally:
        torch.clear_autocast_cache()
