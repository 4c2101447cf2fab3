"""Progressive freezing of layers (Brock et al., 2017)."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import nn

from plugins.base import RecipeError, declare, needs_closure
from plugins.finetuning._freezing import NEVER, ROUNDING, Freezing, by_depth, called


def frozen_from(number: int, layers: int, start: float, level: float) -> float:
    """The share of the training at which layer `number`, 0 at the input, of so many before the head freezes: level · (t − s) / (1 − s) · layers = number + 1."""
    return start + (1 - start) * (number + 1) / (level * layers)


class LayerFreezing(Freezing):
    """Train all layers at first, and freeze one after the other from the input on: later steps need no backward pass through them.

    At the share t of the training the first ⌊l · (t − s) / (1 − s) · L⌋ of the L layers before the head are frozen, from the share s on. What is
    frozen has no gradient, so neither the optimizer, its momentum nor weight decay move it, and its norm layers normalize with the statistics they
    have. The head is always trained. Layers are those of `optimizer.layer_decay`: a layer with weights, or one block of a row of them. Who is
    frozen is a function of the steps done, so a run that goes on freezes where it would have. Logged: `layers`, how many are frozen.

    Raises:
        RecipeError: a model of one layer; a training without an end; L-BFGS.
        Refusal: what thaws layers meanwhile, or freezes others, or begins to count anew; optimizer=schedule_free and averaging=swa, which
            evaluate other weights.

    Source: Brock, Lim, Ritchie & Weston, "FreezeOut: Accelerate Training by Progressively Freezing Layers", 2017; MosaicML Composer, "Layer
    Freezing" (the schedule).
    """

    refuses = {
        f"finetuning/{name}": "it thaws layers while this freezes them; leave one of the two out"
        for name in ("gradual", "linear_probe")
    } | {
        "finetuning/freeze": "each says by itself which layers rest, and would thaw those of the other; leave one of the two out",
        "stopping/early_continue": "its second phase would thaw what the first has frozen; take stopping=early_retrain",
        "optimizer/schedule_free": "what is frozen would rest at other weights than those that are evaluated; take optimizer=adamw",
        "averaging/swa": "what freezes while it averages would be evaluated with statistics of other weights; take averaging=ema",
    }

    freeze_start: float = declare.number(
        "s, the share of the training in which all layers are trained", default=0.5, least=0, below=1
    )
    freeze_level: float = declare.share(
        "l, the share of the layers before the head that is frozen in the end", default=1.0, off=0.0
    )

    def __post_init__(self) -> None:
        self._times: list[float] = []  # unknown until there is a model

    def starts(self, model: nn.Module) -> Mapping[str, float]:
        """At which share of the training each parameter rests, by name: `NEVER` the head."""
        head, *others = by_depth(model, self.state_key).values()
        times: dict[str, float] = {}
        told: list[str] = []
        for number, layer in enumerate(reversed(others)):
            at = frozen_from(number, len(others), self.freeze_start, self.freeze_level)
            times |= dict.fromkeys(layer, at)
            told += [f"{called(layer)} from {at:.0%} of the training on"] if at < 1 - ROUNDING else []
        self.remarks = [
            f"freezes {', '.join(told) or 'nothing before the end: take a larger curriculum.layer_freezing.freeze_level'}"
        ]
        return times | dict.fromkeys(head, NEVER)

    def is_trained(self, start: float, now: float) -> bool:
        """Until then."""
        return not start <= now + ROUNDING

    def now(self, trainer: L.Trainer, module: Any) -> float:
        """The share of the training that is over."""
        done, total = module.progress
        return float(done / total)

    def same_so_far(self, done: int, before: int, now: int) -> bool:
        """Whether in each step the same layers rest, or none of any model would."""
        if not super().same_so_far(done, before, now):
            return False
        if not self._times:
            return done - 1 <= self.freeze_start * min(before, now)
        known = (tuple(bisect(self._times, step / total + ROUNDING) for total in (before, now)) for step in range(done))
        return all(first == second for first, second in known)

    def expect_time(self, trainer: L.Trainer, module: Any) -> None:
        """Refuse a training of which no share is known, and an optimizer that moves what is frozen by its memory of earlier steps."""
        if needs_closure(inner := getattr(trainer.optimizers[0], "optimizer", trainer.optimizers[0])):
            raise RecipeError(
                f"{self.state_key}: {type(inner).__name__} makes a step of those before, which would move what is frozen: take another "
                f"optimizer, or leave it out"
            )
        if module.progress[1] is None:
            raise RecipeError(f"{self.state_key} counts shares of the training, and it has no end: set max_epochs or max_steps")

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Freeze the next layer if it is due."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.record(pl_module, "layers", float(self._stage or 0))
