"""Going back to the last good state after a NaN."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import Diverged, Module, Plugin, Refusal, Selection, Stage, declare
from plugins.shards import parts

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # what schedulers keep in parameter groups


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether no number kept here is NaN or infinite, as a scalar on the device: the norm of all of them is finite then.

    Numbers whose squares overflow, above 10^19, count as infinite; this is by far the fastest way to look at all.
    """
    return get_total_norm(parts(tensors)).isfinite()


def scale_rates(optimizer: Optimizer, schedulers: Iterable[LRScheduler], factor: float) -> None:
    """Multiply the learning rate by a factor, now and for the rest of the schedule."""
    for group in optimizer.param_groups:
        group.update({name: group[name] * factor for name in RATES if name in group})
    for scheduler in schedulers:
        scale_rates_of_schedule(scheduler, factor)


def scale_rates_of_schedule(scheduler: Any, factor: float) -> None:
    """Multiply the rates that a scheduler starts from, and those of the schedulers it is made of."""
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    for part in getattr(scheduler, "_schedulers", ()):
        scale_rates_of_schedule(part, factor)


class NaNRollback(Plugin):
    """Undo a step that made the loss, a gradient or a weight NaN or infinite, and go on with a lower learning rate.

    The model and the optimizer go back to the last good state, at most every_n_steps steps old; the learning rate, now
    and in the rest of the schedule, is multiplied by lr_factor. The data and the schedule go on from where they are.
    The check reads one number from the device in each step, so that no bad weight gets into an average, a validation
    or a checkpoint.

    Raises:
        Refusal: precision 16-true, in which the check itself would overflow.
        Diverged: in training, a bad step after max_rollbacks rollbacks.

    Source: lecture E ("restart training from an earlier checkpoint").
    """

    stage = Stage.GUARD
    on_shards = True

    max_rollbacks: int = declare.count("times to go back before giving up", default=3, least=0)
    lr_factor: float = declare.number("factor on the learning rate each time", default=0.5, above=0, most=1)
    every_n_steps: int = declare.count("steps between copies of the good state", default=100)

    def __post_init__(self) -> None:
        """Nothing has gone wrong yet."""
        self.count = 0
        self.good: dict[str, Any] = {}  # step, model and optimizer as they were
        self.gradients_overflow = False

    def check(self, selection: Selection) -> None:
        """Refuse weights of small range; learn whether infinite gradients are usual: loss scaling skips such steps itself."""
        if selection.precision == "16-true":
            raise Refusal(
                "guard/nan_rollback squares weights, which overflows in trainer.precision=16-true: take bf16-mixed or 32-true"
            )
        self.gradients_overflow = selection.precision == "16-mixed"

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Keep the state at the start, unless a checkpoint held one: so a resumed run goes back where the other would."""
        if pl_module.steps_done == 0 or not self.good:
            self.count = 0 if pl_module.steps_done == 0 else self.count
            self.keep(pl_module, trainer.optimizers[0])

    def keep(self, module: Module, optimizer: Optimizer) -> None:
        """Copy the state."""
        state = {"model": module.model.state_dict(), "optimizer": optimizer.state_dict()}
        self.good = {"step": module.steps_done, **deepcopy(state)}

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Go back if the step was bad; keep the state if it was good and the time has come."""
        if not self.is_good(module, optimizer):
            self.roll_back(module, optimizer)
        elif module.steps_done % self.every_n_steps == 0:
            self.keep(module, optimizer)
        self.record(module, "count", float(self.count))

    def is_good(self, module: Module, optimizer: Optimizer) -> bool:
        """Whether loss, weights and gradients are finite, on all ranks."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [] if self.gradients_overflow else [p.grad for p in parameters if p.grad is not None]
        good = all_finite([module.last_objective.detach(), *parameters, *gradients])
        if dist.is_available() and dist.is_initialized():
            good = good.to(torch.int32)
            dist.all_reduce(good, op=dist.ReduceOp.MIN)
        return bool(good)

    def roll_back(self, module: Module, optimizer: Optimizer) -> None:
        """Put the last good state back, except for the parameter groups, whose learning rate is lowered."""
        if self.count == self.max_rollbacks:
            raise Diverged(
                f"guard/nan_rollback: loss, gradients or weights became NaN or infinite at step {module.steps_done}, after "
                f"{self.count} rollbacks (learning rate now {float(optimizer.param_groups[0]['lr']):g}): try a lower "
                "optimizer.lr, +clipping=norm, or look for NaN in the data"
            )
        self.count += 1
        module.forget_step()
        module.model.load_state_dict(self.good["model"])
        optimizer.load_state_dict({**deepcopy(self.good["optimizer"]), "param_groups": optimizer.state_dict()["param_groups"]})
        scale_rates(optimizer, [config.scheduler for config in module.trainer.lr_scheduler_configs], self.lr_factor)

    def state_dict(self) -> dict[str, Any]:
        """The number of rollbacks, and the last good state."""
        return {"count": self.count, "good": self.good}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.count, self.good = state_dict["count"], state_dict["good"]
