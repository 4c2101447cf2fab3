"""Parameter groups of an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from plugins.base import RecipeError
from plugins.parameters import named_parameters


def parameter_groups(model: nn.Module, no_decay: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Parameter groups in which biases or parameters of norm layers get no weight decay."""
    if unknown := set(no_decay) - {"bias", "norm"}:
        raise RecipeError(f"optimizer.no_decay must name bias or norm, got {', '.join(sorted(unknown))}")
    if not no_decay:
        return [{"params": list(model.parameters())}]
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for named in named_parameters(model):
        (free if named.kind in no_decay else decayed).append(named.parameter)
    return [group for group in ({"params": decayed}, {"params": free, "weight_decay": 0.0}) if group["params"]]
