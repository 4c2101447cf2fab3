"""The L1 penalty (Tibshirani, 1996), by its subgradient or by its proximal map."""

from __future__ import annotations

from collections.abc import Mapping

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

    Raises:
        Refusal: `proximal` with optimizer=schedule_free, wrapper=lookahead or an average, which are evaluated at other weights than those of
            the steps.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 7.1.2; Parikh & Boyd, "Proximal Algorithms", 2014, section 6.5.2.
    """

    stage = Stage.PROJECTION  # where it acts after a step; a sum has no order
    on_named_inputs = True
    on_class_maps = True

    weight: float = declare.number("factor λ of the penalty λ · Σ|w|", default=1e-5, least=0, off=0.0)
    proximal: bool = declare.flag("soft-threshold weights after each step, in place of a term in the loss", default=False)

    def check(self, selection: Selection) -> None:
        """Refuse exact zeros where they would be lost in an average."""
        for name, instead in LOST.items():
            if self.proximal and selection.has(name):
                raise Refusal(
                    f"regularizer/l1 cannot keep zeros with {name.replace('/', '=')}, whose evaluated weights are an average of those "
                    f"that it thresholds: use regularizer.l1.proximal=false, or {instead}"
                )

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The penalty on the weights as they are in this pass; None where it is in the update."""
        return None if self.proximal else self.weight * absolute_sum(weights_of(module.model))

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """With `proximal`, the soft threshold, by the learning rate of each weight's group."""
        weights = {id(weight) for weight in weights_of(module.model)} if self.proximal else set()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in weights:
                    parameter.copy_(soft_threshold(parameter, float(group["lr"]) * self.weight))
