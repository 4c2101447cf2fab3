"""The quantile loss, or pinball loss (Koenker & Bassett, 1978)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Batch, Module, Option, RecipeError, Task, declare
from plugins.loss._kinds import LossOfNumbers

if TYPE_CHECKING:
    from jaxtyping import Float


def pinball(residual: Float[Tensor, " *shape"], q: float | Tensor) -> Float[Tensor, " *shape"]:
    """q r where the target lies above by r, (q − 1) r where it lies below."""
    return torch.maximum(q * residual, (q - 1) * residual)


def _is_level(value: object) -> bool:
    return isinstance(value, float) and 0 < value < 1


def _are_levels(value: object) -> bool:
    if not isinstance(value, (list, tuple)):
        return _is_level(value)
    return bool(value) and all(map(_is_level, value)) and list(value) == sorted({*value})


class QuantileLoss(Option, LossOfNumbers):
    """Predict the value below which a share q of the targets lies, or several such values.

    lossᵢ = meanⱼ max(q rᵢⱼ, (q − 1) rᵢⱼ) with r = t − z. With several q the model has an output for each: of column j of the targets those of
    all q come one after the other; the mean is over columns and q, and nothing keeps a smaller q below a larger one. An evaluation
    measures `coverage`, the share of the targets that lie at or below the prediction, which should be near q; of several q `coverage_Q`.

    Shapes: output z (samples, columns · number of q); target (samples, columns), or repeated to the shape of the output. A value for each
    sample (samples,).

    Raises:
        RecipeError: labels; shapes that differ; a model whose outputs are no multiple of the number of q.

    Source: Koenker & Bassett, "Regression Quantiles", Econometrica 1978.
    """

    on_named_inputs = True

    q: float | Sequence[float] = declare.value(
        "share of the targets that is to lie below, in (0, 1) | [0.1,0.5,0.9]: several, ascending, with an output for each",
        "a number in (0, 1), or a list of such in ascending order",
        _are_levels,
        default=0.5,
    )

    @property
    def levels(self) -> tuple[float, ...]:
        """All q."""
        return tuple(self.q) if isinstance(self.q, Sequence) else (self.q,)

    def refine(self, task: Task) -> Task:
        """A regression of several quantiles."""
        return replace(task, quantiles=self.levels) if task.kind == "regression" and len(self.levels) > 1 else task

    def for_task(self, task: Task) -> LossOfNumbers:
        """Itself, for numbers with an output for each q."""
        if task.outputs % len(self.levels):
            raise RecipeError(
                f"loss=quantile has {len(self.levels)} values of q, and the model {task.outputs} outputs: give it one for each column and q"
            )
        return super().for_task(task)

    def values(self, residual: Tensor) -> Tensor:
        """The pinball loss of each."""
        q = torch.tensor(self.levels, dtype=residual.dtype, device=residual.device)
        return pinball(residual, q.repeat(residual.shape[-1] // len(q)) if len(q) > 1 else q)

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Of each sample the share of columns that lie at or below the prediction, for each q."""
        found = {}
        for task in (each for each in module.setting.tasks if each.kind == "regression"):
            output, target = outputs[task.name], task.in_shape(batch.labels[task.name], outputs[task.name])
            below = (target <= output).to(output.dtype).unflatten(1, (-1, len(self.levels))).mean(1)
            prefix = f"{task.name}/" if len(module.setting.tasks) > 1 else ""
            for place, q in enumerate(self.levels):
                found[f"{prefix}coverage" + (f"_{q:g}" if len(self.levels) > 1 else "")] = below[:, place]
        return found
