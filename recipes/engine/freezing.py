"""Which parameters are trained may change between two steps; how processes share gradients follows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.parallel import DistributedDataParallel

from plugins.compiled import is_compiled
from recipes.engine.lightning_private import is_attached
from recipes.engine.parts import Whole
from recipes.engine.sharding import is_sharded, put_together_for_evaluation


def train_parameters(module: Whole, trained: Mapping[str, bool]) -> None:
    """Have parameters of the model, by name, trained from the next step on, or not; on all processes at the same step.

    What is not trained has no gradient, so no optimizer touches it. Copies of a model on several processes are joined anew, because
    torch decides once which gradients they share; a compiled model is compiled anew.
    """
    model = module.model
    changed = {
        name
        for name, parameter in model.named_parameters()
        if trained.get(name, parameter.requires_grad) != parameter.requires_grad
    }
    if not changed:
        return
    with put_together_for_evaluation(model):  # of parts the whole is a parameter of its own
        _set(module, changed, trained)
    if is_sharded(model):
        _set(module, changed, trained)
    if is_compiled(model):
        torch.compiler.reset()
    strategy = module.trainer.strategy if is_attached(module) else None
    if strategy is not None and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = module
        strategy.configure_ddp()  # type: ignore[attr-defined]


def _set(module: Whole, changed: set[str], trained: Mapping[str, bool]) -> None:
    for name, parameter in module.model.named_parameters():
        if name in changed:
            parameter.requires_grad_(trained[name])
            parameter.grad = None
