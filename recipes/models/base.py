"""What the models share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from plugins.base import expect, expect_choice

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


def activation_class(name: str) -> type[nn.Module]:
    """The activation of that name."""
    expect_choice("model.activation", name, list(ACTIVATIONS))
    return ACTIVATIONS[name]


def expect_sizes(name: str, sizes: Sequence[int]) -> None:
    """Accept a list of whole numbers ≥ 1."""
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes)
    expect(whole, name, "a list of whole numbers ≥ 1, such as [128,128]", list(sizes))


def expect_image(name: str, shape: Sequence[int]) -> None:
    """Accept samples of shape (channels, height, width)."""
    expect(
        len(shape) == 3, f"data for model={name}", "images (channels, height, width); model=mlp takes any shape", tuple(shape)
    )
