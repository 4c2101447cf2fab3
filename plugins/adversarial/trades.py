"""TRADES: accuracy traded for robustness by the divergence of predictions (Zhang et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from plugins.adversarial._ascent import Bounds, Loss, pgd
from plugins.adversarial._attack import Attack
from plugins.adversarial._crafting import resolution
from plugins.base import Batch, Module, Refusal, Selection, Task, declare
from plugins.regularizer._predictions import expect_classes, log_probabilities

if TYPE_CHECKING:
    from jaxtyping import Float

START = 0.001  # standard deviation of the noise from which the ascent starts: at x itself the divergence has no slope;
STEPS = 4  # distances of numbers near 1 that it is at least, lest it is rounded away


def start_size(resolution: float, farthest: float) -> float:
    """The standard deviation of the start: 0.001, or more, up to `farthest`, in passes that tell numbers near 1 apart by `resolution` only."""
    return max(START, min(STEPS * resolution, farthest))


def divergence(
    log_p: Float[Tensor, "samples outcomes *rest"], log_q: Float[Tensor, "samples outcomes *rest"]
) -> Float[Tensor, " samples *rest"]:
    """KL(p ‖ q) = Σ p (ln p − ln q) over the outcomes."""
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


class TRADES(Attack):
    """Train on samples as they are, and have the model predict the same in the worst case near each of them.

    J(θ) + β · KL(f(x) ‖ f(x′)), the mean over samples, or the sum where the loss is one, weighted as the loss is, for each classification. x′ is found by `steps` steps
    x′ ← Π(x′ + α · sign(∇ KL(f(x) ‖ f(x′)))) from x + s · N(0, 1), for l2 along ∇ KL / ‖∇ KL‖₂; Π is the projection onto the ball of
    radius ε around x and onto the range of valid inputs. s = 0.001; in passes of 16 bits, which round that away, four times the distance of
    numbers near 1 (0.03 for bfloat16, 0.004 for float16), but ε/2 at most, for l2 in length. No label is looked at while crafting. The gradient leads through
    f(x) and f(x′). Of several labels a sample the divergence is the mean over the labels. `steps` + 2 forward and backward passes a step,
    and a forward pass beside them.

    Raises:
        Refusal: no classification task; a loss whose outputs are no logits; label=predicted; images outside of [0, 1] without a range.

    Source: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019.
    """

    needs_logits = True

    eps: float = declare.number(
        "radius of the ball in the raw range", default=0.031373, least=0, note="8/255 of the pixel range", off=0.0
    )
    alpha: float | None = declare.number(
        "length of a step", default=None, above=0, null="eps/4", more="In the raw range; it rises with ε during warm-up."
    )
    steps: int = declare.count("steps in training", default=10, note="evaluations make eval_steps")
    beta: float = declare.number("factor of the divergence", default=6.0, least=0, off=0.0)

    @property
    def trains(self) -> bool:
        """Whether there is a ball, and what happens in it counts."""
        return self.eps > 0 and self.beta > 0

    def check(self, selection: Selection) -> None:
        """Refuse data without classes, and a label where none is looked at."""
        expect_classes(self.state_key, selection)
        if self.label == "predicted":
            raise Refusal(
                f"{self.state_key} raises the divergence from its own prediction, whatever the label: use adversarial.label=true"
            )

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Find the worst case near each sample, and leave the batch as it is."""
        attacked = super().transform_batch(batch, module)
        return batch if attacked is batch else replace(batch, extra={**batch.extra, self.state_key: attacked.x})

    def raised(self, module: Module, x: Tensor, targets: Mapping[str, Tensor], weight: Mapping[str, Tensor]) -> Loss:
        """The divergence of all samples from what is predicted for x, of each task as it is minimized, up to a common factor."""
        with torch.no_grad():
            known = module.outputs(x)
        tasks = [task for task in module.setting.tasks if task.kind != "regression"]

        def total(moved: Tensor) -> Tensor:
            found = module.outputs(moved)
            terms = []
            for task in tasks:
                values, counted = self._apart(task, known, found), weight.get(task.name)
                if counted is not None:
                    whole = counted.sum()
                    values = values * counted * (len(x) / whole.where(whole != 0, 1.0))
                terms.append(values.sum())
            return torch.stack(terms).sum()

        return total

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """Several projected steps from next to x."""
        alpha = eps / 4 if self.alpha is None else self.alpha * (eps / self.eps)
        farthest = eps / 2 if self.norm == "linf" else eps / 2 / math.sqrt(x[0].numel())
        start = start_size(resolution(x), farthest) * torch.empty_like(x).normal_(generator=generator)
        return pgd(x, loss, eps, alpha, self.steps, self.norm, bounds, start)

    def _apart(self, task: Task, outputs: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Tensor:
        """The divergence of each sample, (samples,); of several labels the mean over them."""
        values = divergence(*(log_probabilities(each[task.name], task.kind) for each in (outputs, others)))
        return values if values.ndim == 1 else values.mean(1)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The divergence of the predictions for samples and for their worst cases."""
        if (worst := batch.extra.get(self.state_key)) is None:
            return None
        found, terms = module.outputs(worst), []
        attacked = (worst != batch.x).flatten(1).any(1)  # samples that are left clean have none, whatever is dropped
        for task in module.setting.tasks:
            if task.kind != "regression":
                values = self._apart(task, outputs, found)
                terms.append(module.mean(values * attacked, batch, task.name))
        total = torch.stack(terms).sum()
        self.record(module, "divergence", total)
        return self.beta * total
