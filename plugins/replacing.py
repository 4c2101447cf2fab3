"""Putting a module in the place of another, so that it is called."""

from __future__ import annotations

from torch import nn


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, wherever the model keeps that."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
    call_always(model, new)


def call_always(model: nn.Module, part: nn.Module) -> None:
    """Have torch's transformer layers call a part of theirs: in evaluations they compute all in one operation, which calls none."""
    for layer in model.modules():
        if not isinstance(layer, (nn.TransformerEncoderLayer, nn.TransformerEncoder)) or part not in layer.modules():
            continue
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0
        else:
            layer.use_nested_tensor = False
