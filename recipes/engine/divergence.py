"""Whether a training has diverged, and what to try then; the answer is the same on all processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.base import Diverged
from plugins.shards import parts
from recipes.engine.parts import Whole

log = logging.getLogger("recipes")


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether none of them holds NaN or infinity, on any process; reads a number from the device.

    Nothing is squared or added up, so no number that is finite counts as infinite.
    """
    by_kind: dict[Any, list[Tensor]] = {}
    for tensor in parts(tensors):
        if tensor.is_floating_point() and tensor.numel():
            by_kind.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    largest = [torch.stack(torch._foreach_norm(alike, float("inf"))) for alike in by_kind.values()]
    finite = all(bool(norms.isfinite().all()) for norms in largest)
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return finite
    flag = torch.tensor(int(finite), device=largest[0].device if largest else torch.device("cpu"))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def diverged(module: Whole, what: str) -> Diverged:
    """What is raised where the training of a `RecipeModule` has diverged: what became NaN or infinite, when, and what to try."""
    selected = {plugin.group for plugin in module.plugins} | {plugin.state_key for plugin in module.plugins}
    rates = [group["lr"] for optimizer in module.trainer.optimizers for group in optimizer.param_groups if "lr" in group]
    tries = ["a lower optimizer.lr" + (f" (it is {float(rates[0]):g})" if rates else "")]
    if str(module.trainer.precision).startswith("16"):
        tries.append("trainer.precision=bf16-mixed")
    if "clipping" not in selected:
        tries.append("+clipping=norm")
    if "guard" not in selected:
        tries.append("+guard=nan_rollback")
    if module.setting is not None and not module.setting.is_image and not selected & {"preprocessing/standardize"}:
        tries.append("preprocessing=standardize")
    regression = module.setting is not None and any(task.kind == "regression" for task in module.setting.tasks)
    if regression and not module.standardize_targets:
        tries.append("data.standardize_targets=true")
    step = module.steps_done + int(module.phase["steps"])
    return Diverged(f"the training diverged, {what} NaN or infinite at step {step}: try {', '.join(tries[:-1])} or {tries[-1]}")


def expect_finite(module: Whole) -> bool:
    """Whether weights, and the loss of the last step, are finite, on all processes alike; see :func:`_ends` for where not.

    A step that a technique has undone counts for nothing; nor does a loss in 16-mixed, where loss scaling leaves such steps out.
    """
    trained = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
    counts = not module.step.undone and str(module.trainer.precision) != "16-mixed" and module.step.passes > 0
    return all_finite([*trained, *([module.last_objective] if counts else [])]) or _ends(module, "loss or weights became")


def expect_finite_loss(module: Whole, split: str) -> bool:
    """Whether the loss that the last evaluation has found is finite; see :func:`_ends` for where not."""
    return math.isfinite(module.metrics.get(f"{split}/loss", 0.0)) or _ends(module, f"{split}/loss became")


def _ends(module: Whole, what: str) -> bool:
    """End a training that has diverged: with the good weights that a technique has kept or, without any, by raising."""
    error = diverged(module, what)
    if not any(plugin.recovers for plugin in module.plugins):
        module.evaluation.put_back()
        raise error
    if not module.trainer.should_stop:
        log.warning("%s; the training ends with the best weights so far", error)
    module.trainer.should_stop = True
    return False
