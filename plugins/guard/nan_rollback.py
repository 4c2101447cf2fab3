"""Going back to the last good state after a NaN."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from plugins.base import Module, Refusal, Selection
from plugins.guard._rollback import Rollback, over_ranks
from plugins.shards import parts


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether no number kept here is NaN or infinite, as a scalar on the device: the norm of all of them is finite then.

    Numbers whose squares overflow, above 10^19, count as infinite; this is by far the fastest way to look at all.
    """
    return get_total_norm(parts(tensors)).isfinite()


class NaNRollback(Rollback):
    """Undo a step that made the loss, a gradient or a weight NaN or infinite, and go on with a lower learning rate.

    The model and the optimizer go back to the last good state, one from which a step was good, about twice every_n_steps steps old at most; the learning rate, now
    and in the rest of the schedule, is multiplied by lr_factor. The data and the schedule go on from where they are.
    The check reads one number from the device in each step, so that no bad weight gets into an average, a validation
    or a checkpoint.

    Raises:
        Refusal: precision 16-true, in which the check itself would overflow.
        Diverged: in training, a bad step after max_rollbacks rollbacks.

    Source: lecture E ("restart training from an earlier checkpoint").
    """

    def __post_init__(self) -> None:
        """Nothing has gone wrong yet."""
        super().__post_init__()
        self.gradients_overflow = False

    def check(self, selection: Selection) -> None:
        """Refuse weights of small range; learn whether infinite gradients are usual: loss scaling skips such steps itself."""
        if selection.precision == "16-true":
            raise Refusal(
                "guard/nan_rollback squares weights, which overflows in trainer.precision=16-true: take bf16-mixed or 32-true"
            )
        self.gradients_overflow = selection.precision == "16-mixed"

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Go back if the step was bad; one that another guard has undone already is over."""
        if module.step_undone:
            self.doubt()
        elif not self.is_good(module, optimizer):
            self.doubt()
            self.roll_back(module, optimizer, "loss, gradients or weights became NaN or infinite")
        else:
            self.confirm(module, optimizer)
        self.record(module, "count", float(self.count))

    def is_good(self, module: Module, optimizer: Optimizer) -> bool:
        """Whether loss, weights and gradients are finite, on all ranks."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [] if self.gradients_overflow else [p.grad for p in parameters if p.grad is not None]
        good = all_finite([module.last_objective.detach(), *parameters, *gradients])
        return bool(over_ranks(good.to(torch.int32), dist.ReduceOp.MIN))
