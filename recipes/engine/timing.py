"""Techniques that act in a share of the training only: outside of it their layers let pass what they get."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from plugins.base import ALWAYS, Option
from recipes.engine.parts import Whole

NEVER_CALLED = (ParametrizationList, nn.ModuleDict)  # what computes a weight is within these, and is called


@contextmanager
def gating(module: Whole, option: Option) -> Iterator[None]:
    """Let the layers that an option puts into the model within act when the option does."""
    before = {id(layer) for layer in module.model.modules()}
    yield
    if option.when == ALWAYS:
        return
    new = [layer for layer in module.model.modules() if id(layer) not in before and not isinstance(layer, NEVER_CALLED)]
    inner = {id(part) for layer in new for part in layer.modules() if part is not layer}
    outermost = [layer for layer in new if id(layer) not in inner]
    for layer in outermost:
        # a tensor, so that what is compiled is compiled once, and saved: a layer that has stopped acting is not evaluated either
        layer.register_buffer("acting", torch.tensor(True))
        layer.register_forward_hook(_pass_by)
    module.gated.append((option, outermost))


def _pass_by(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    given = inputs[0]
    if isinstance(output, Mapping):
        return {name: torch.where(layer.acting, value, given[name]) for name, value in output.items()}  # type: ignore[arg-type]
    if output.shape != given.shape:  # tokens that are left out
        return output if layer.acting else given
    return torch.where(layer.acting, output, given)  # type: ignore[arg-type]


def open_gates(module: Whole, progress: tuple[int, int | None]) -> None:
    """Say to layers whether they act in this step."""
    for option, layers in module.gated:
        for layer in layers:
            layer.acting.fill_(option.acts(progress))  # type: ignore[operator]


def never_acted(module: Whole) -> dict[str, str]:
    """Why a technique acted in no step of a training that has ended, by its name: nothing is said of one that did."""
    done, total = module.progress
    found: dict[str, str] = {}
    if not total:
        return found
    for plugin in module.plugins:
        begins = math.ceil(plugin.when[0] * total)  # steps before it may act
        if plugin.when != ALWAYS and not plugin.acts((begins, total)):
            found[plugin.state_key] = f"it never acted: none of {total} steps lies in when={list(plugin.when)}"
        elif begins >= done > 0:
            found[plugin.state_key] = f"it never acted: the training ended at step {done}, and it begins behind step {begins}"
    return found
