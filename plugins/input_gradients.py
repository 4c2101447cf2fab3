"""The gradient of a convolution by its input where that has few channels, as of images: by a product instead of another convolution.

With as few channels the libraries of CPUs take as long for it as for all else of a small network. Unfolded it is one product of matrices, from
1.5 to 4 times as fast, and as exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from plugins.compiled import is_compiled

CHANNELS = 3  # the most that are few
PIECE = 2**20  # values of the unfolded gradient that are made at once
Pair = tuple[int, int]


def by_product(g: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """`∂(Σ g ∗ conv2d(x, weight)) / ∂x`: `wᵀ g` of each place, added up where the places overlap.

    Args:
        g: (samples, outputs, ...), what multiplies the convolution's output.
        weight: (outputs, channels, height, width) of the kernel.
        size: height and width of x.
        stride: of the convolution, as are padding and dilation.

    Returns:
        (samples, channels, height, width).
    """
    columns, kernel = weight.flatten(1).t(), weight.shape[2:]
    samples = max(1, PIECE // max(1, len(columns) * g.shape[2] * g.shape[3]))
    pieces = (torch.bmm(columns.expand(len(piece), -1, -1), piece.flatten(2)) for piece in g.split(samples))
    return torch.cat([functional.fold(piece, size, kernel, dilation, padding, stride) for piece in pieces])


class _Convolution(torch.autograd.Function):
    """`conv2d`, with its gradient by the input as a product."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
        return functional.conv2d(x, weight, bias, stride, padding, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, *ctx.places = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        ctx.outputs = None if bias is None else list(bias.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, weight), (by_x, *by_weights) = gradients, ctx.saved_tensors, ctx.needs_input_grad[:3]
        of_x = by_product(g, weight, tuple(x.shape[2:]), *ctx.places) if by_x else None
        of_weight = of_bias = None
        if any(by_weights):
            asked = (False, (0, 0), 1, (False, *by_weights))
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(g, x, weight, ctx.outputs, *ctx.places, *asked)
        return of_x, of_weight, of_bias, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (of_x, of_weight, of_bias, *_), (x, weight) = tangents, ctx.saved_tensors
        moved = torch.zeros_like(weight) if of_weight is None else of_weight
        found = functional.conv2d(x, moved, of_bias, *ctx.places)
        return found if of_x is None else found + functional.conv2d(of_x, weight, None, *ctx.places)


def _forward(layer: nn.Conv2d, weights: bool, input: Tensor) -> Tensor:  # called as the layer's own
    """What a layer returns."""
    floats = (
        input.dtype in (torch.float32, torch.float64) and input.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    )
    if not (input.requires_grad and floats and input.ndim == 4 and len(input)):
        return nn.Conv2d.forward(layer, input)
    weight, bias = layer.weight, layer.bias  # once: it may be drawn anew
    if not weights:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    places = (_pair(each) for each in (layer.stride, layer.padding, layer.dilation))
    return _Convolution.apply(input, weight, bias, *places)


def _pair(value: Any) -> Pair:
    """Both directions; whoever changes a layer may write a number for both."""
    return (value, value) if isinstance(value, int) else tuple(value)


@contextmanager
def light_input_gradients(model: nn.Module, weights: bool = True) -> Iterator[None]:
    """Convolutions of inputs with few channels whose gradient by the input, asked of what passes through them within, costs less.

    Args:
        model: a compiled one stays as it is.
        weights: whether gradients lead to the weights of these layers too.
    """
    with ExitStack() as stack:
        for layer in () if is_compiled(model) else model.modules():
            if _is_light(layer):
                setattr(layer, "forward", partial(_forward, layer, weights))  # noqa: B010
                stack.callback(delattr, layer, "forward")
        yield


def _is_light(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution of few channels, as PyTorch computes it."""
    if not isinstance(layer, nn.Conv2d) or layer.in_channels > CHANNELS or "forward" in vars(layer):
        return False
    plain = type(layer).forward is nn.Conv2d.forward and type(layer)._conv_forward is nn.Conv2d._conv_forward
    plain = plain and "_conv_forward" not in vars(layer) and layer.padding_mode == "zeros" and layer.groups == 1
    return plain and not isinstance(layer.padding, str)
