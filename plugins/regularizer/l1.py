"""The L1 penalty (Tibshirani, 1996), by its subgradient or by its proximal map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Batch, Module, Plugin, Refusal, Selection, Stage, declare
from plugins.parameters import weights_of
from plugins.regularizer._norms import absolute_sum, soft_threshold

LOST = {
    "optimizer/schedule_free": "another optimizer",
    "wrapper/lookahead": "leave wrapper=lookahead out",
    "averaging/ema": "leave averaging=ema out",
    "averaging/swa": "leave averaging=swa out",
}


class L1Penalty(Plugin):
    """Pull weights towards zero, all by the same amount.

    J(θ) + weight · Σ|w| over weights, not biases or the parameters of norm layers. Its steps jump over zero; with `proximal` the loss
    stays as it is, and after each step w ← sign(w) · max(0, |w| − ε · weight) with the learning rate ε of w's group: exact zeros.
    Logged: `penalty`, weight · Σ|w|, either way.

    Raises:
        Refusal: `proximal` with optimizer=schedule_free, wrapper=lookahead or an average, which are evaluated at other weights than those of
            the steps; with normalization=weight_standardization; or with an optimizer whose learning rate is no length of a step, as of
            those that find it themselves (Prodigy).

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 7.1.2; Parikh & Boyd, "Proximal Algorithms", 2014, section 6.5.2.
    """

    stage = Stage.PROJECTION  # where it acts after a step; a sum has no order
    on_named_inputs = True
    on_class_maps = True

    weight: float = declare.number("factor λ of the penalty λ · Σ|w|", default=1e-5, least=0, off=0.0)
    proximal: bool = declare.flag("soft-threshold weights after each step, in place of a term in the loss", default=False)

    def check(self, selection: Selection) -> None:
        """Refuse exact zeros where they would be lost in an average, or are none of the weights that the model runs with."""
        if self.proximal and selection.has("normalization/weight_standardization"):
            raise Refusal(
                "regularizer/l1 cannot keep zeros with normalization=weight_standardization, which takes the mean of weights away: use "
                "regularizer.l1.proximal=false, or another normalization"
            )
        for name, instead in LOST.items():
            if self.proximal and selection.has(name):
                raise Refusal(
                    f"regularizer/l1 cannot keep zeros with {name.replace('/', '=')}, whose evaluated weights are an average of those "
                    f"that it thresholds: use regularizer.l1.proximal=false, or {instead}"
                )

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The penalty on the weights as they are in this pass; None where it is in the update."""
        penalty = self.weight * absolute_sum(weights_of(module.model))
        self.record(module, "penalty", penalty)
        return None if self.proximal else penalty

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuse to threshold by a learning rate that is a factor on a step of another length."""
        groups = trainer.optimizers[0].param_groups if self.proximal else []
        if any("d" in group or group.get("relative_step") for group in groups):  # d: the distance to go, as Prodigy calls it
            raise Refusal(
                "regularizer/l1 thresholds by the learning rate, and this optimizer finds the length of its steps itself: use "
                "regularizer.l1.proximal=false, or another optimizer"
            )

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """With `proximal`, the soft threshold, by the learning rate of each weight's group."""
        weights = {id(weight) for weight in weights_of(module.model)} if self.proximal else set()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in weights:
                    parameter.copy_(soft_threshold(parameter, float(group["lr"]) * self.weight))
