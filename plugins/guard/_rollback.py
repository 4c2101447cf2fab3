"""Going back to the last good state, at most so many times: what guards have in common."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import lightning as L
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import ALWAYS, Diverged, Module, Plugin, Stage, declare

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # what schedulers keep in parameter groups
SCHEDULED = (*RATES, "momentum", "betas")  # and what they set


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


def over_ranks(value: Tensor, how: Any) -> Tensor:
    """A number as all ranks know it, so that they decide alike."""
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value, op=how)
    return value


class Rollback(Plugin):
    """Keeps the model and the optimizer as they were at a good step, and goes back to them; a subclass decides when.

    A state is good once a step from it was: it is copied every `every_n_steps` steps, and so twice as old at most.

    What has happened stands in `events`, a line for each time, and in every checkpoint.
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
        self.next: dict[str, Any] = {}  # the same of a later step, which is good if the step from it is
        self.events = []

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Keep the state at the start, unless a checkpoint held one: so a resumed run goes back where the other would."""
        if pl_module.steps_done == 0 or not self.good:
            if pl_module.steps_done == 0:
                self.begin()
            self.keep(pl_module, trainer.optimizers[0])

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """With a time of its own, begin with the state before the first step of it."""
        if self.when == ALWAYS:
            return
        if not self.acts(pl_module.progress):
            self.good, self.next = {}, {}
        elif not self.good:
            self.keep(pl_module, trainer.optimizers[0])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Doubt what was copied in a step that another guard has undone behind this one: it may be what was wrong."""
        if pl_module.step_undone:
            self.doubt()

    def begin(self) -> None:
        """Begin anew."""
        self.count, self.events, self.next = 0, [], {}

    def keep(self, module: Module, optimizer: Optimizer) -> None:
        """Copy the state, as a good one."""
        self.good = self.copied(module, optimizer)

    def confirm(self, module: Module, optimizer: Optimizer) -> None:
        """After a good step: what it began from is good, if it was copied; whether this update broke the weights tells the next step."""
        self.good, self.next = self.next or self.good, {}
        if module.steps_done % self.every_n_steps == 0:
            self.next = self.copied(module, optimizer)

    def doubt(self) -> None:
        """After a bad step: what it began from may have been the cause."""
        self.next = {}

    @staticmethod
    def copied(module: Module, optimizer: Optimizer) -> dict[str, Any]:
        """A copy of the state."""
        state = {"model": module.model.state_dict(), "optimizer": optimizer.state_dict()}
        return {"step": module.steps_done, **deepcopy(state)}

    def roll_back(self, module: Module, optimizer: Optimizer, why: str) -> None:
        """Put the last good state back, except for what a schedule sets: rates, which are lowered, and momentum.

        Args:
            module, optimizer: that train.
            why: what was wrong, told with the step.

        Raises:
            Diverged: after `max_rollbacks` times.
        """
        rate = optimizer.param_groups[0].get("lr")
        if self.count == self.max_rollbacks:
            now = "" if rate is None else f" (learning rate now {float(rate):g})"
            self.events = [*self.events, f"{why} at step {module.steps_done}: given up"]
            raise Diverged(
                f"{self.state_key}: {why} at step {module.steps_done}, after {self.count} rollbacks{now}: try a lower optimizer.lr, "
                f"+clipping=norm, {self.advice}"
            )
        self.count += 1
        module.forget_step()
        module.model.load_state_dict(self.good["model"])
        good = deepcopy(self.good["optimizer"])
        for group, now in zip(good["param_groups"], optimizer.state_dict()["param_groups"], strict=True):
            group.update({name: now[name] for name in SCHEDULED if name in now})
        optimizer.load_state_dict(good)
        scale_rates(optimizer, [config.scheduler for config in module.trainer.lr_scheduler_configs], self.lr_factor)
        lower = "" if rate is None else f", the learning rate {float(rate):g} times {self.lr_factor:g} from here on"
        self.events = [*self.events, f"{why} at step {module.steps_done}: back to the state of step {self.good['step']}{lower}"]

    @property
    def advice(self) -> str:
        """What else to try, where it gives up."""
        return "or look for NaN in the data"

    def state_dict(self) -> dict[str, Any]:
        """The number of rollbacks, what has happened, and the last good state."""
        return {"count": self.count, "good": self.good, "next": self.next, "events": list(self.events)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.count, self.good = state_dict["count"], state_dict["good"]
        self.events, self.next = list(state_dict.get("events", ())), state_dict.get("next", {})  # older checkpoints have none
