"""The units of a regression's targets: a model learns them with mean 0 and deviation 1, and predicts them in their own.

A loss of numbers in the hundreds has gradients in the ten thousands, under which every usual learning rate diverges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plugins.base import RecipeError, Setting, Task

LARGEST = 1e15  # of a target: the squares of larger ones, and sums of them, are no 32-bit floats
ROUGHEST = 0.05  # share of the deviation by which a target may be rounded
MEAN, DEVIATION = "target_mean", "target_deviation"  # buffers


def column_moments(pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (÷ n) of each column, in double precision; the deviation of a constant column is 1.

    One pass, merged as in Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances", 1979.

    Args:
        pieces: numbers (samples, columns) or (samples,).

    Raises:
        RecipeError: there are none; numbers that are not finite, or whose squares are not.
    """
    count, mean, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    low, high = torch.tensor(torch.inf).double(), torch.tensor(-torch.inf).double()
    for piece in pieces:
        rows = piece.detach().to("cpu", torch.float64).reshape(len(piece), -1)
        if not len(rows):
            continue
        if not bool(rows.isfinite().all()):
            raise RecipeError("the training targets must be finite numbers, got NaN or infinity among them: clean the data")
        difference = rows.mean(0) - mean
        total = count + len(rows)
        squares = squares + (rows - rows.mean(0)).square().sum(0) + difference.square() * (count * len(rows) / total)
        mean, count = mean + difference * (len(rows) / total), total
        low, high = torch.minimum(low, rows.amin(0)), torch.maximum(high, rows.amax(0))
    if count == 0:
        raise RecipeError("the training split must have samples to learn the units of its targets from, got none")
    if (largest := float(torch.maximum(high, -low).amax())) > LARGEST:
        raise RecipeError(f"the training targets reach {largest:.3g}, whose squares are too large: give them in larger units")
    deviation = (squares / count).sqrt()
    return mean, deviation.where((low < high) & (deviation.float() > 0), 1.0)


def expect_fine_enough(mean: Tensor, deviation: Tensor, precision: str) -> None:
    """Refuse a precision in which Lightning would round targets, before anybody sees them, by much of their deviation."""
    kinds = {"bf16-true": torch.bfloat16, "16-true": torch.float16}
    if precision in kinds and bool((mean.abs() * torch.finfo(kinds[precision]).eps > ROUGHEST * deviation).any()):
        raise RecipeError(
            f"trainer.precision={precision} rounds targets near {float(mean.abs().max()):.4g} by much of what they differ by: type "
            f"trainer.precision={precision.replace('true', 'mixed')}"
        )


def depends_on_difference(loss: Callable[[Tensor, Tensor], Tensor], outputs: int) -> bool:
    """Whether a loss depends on output − target alone: then it means the same for targets that are shifted, else it does not.

    It is tried on numbers in (0, 1): squared, absolute and Huber's errors do; cross entropies and likelihoods do not.
    """
    generator = torch.Generator().manual_seed(0)
    output, target = (0.25 + 0.5 * torch.rand(8, outputs, generator=generator) for _ in range(2))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            here, there = loss(output, target), loss(output + 0.2, target + 0.2)
            return bool(torch.allclose(here, there, rtol=1e-3, atol=1e-6))
    except Exception:  # whatever it is: a loss of another kind of target
        return False


class InTargetUnits(nn.Module):
    """A model whose outputs for regressions are in the units of their targets: y = z · deviation + mean, column by column.

    Args:
        model: learns z; returns a tensor, or a mapping with one entry a task.
        tasks: all targets.
        names: the regressions that are learned so.
        moments: mean and deviation of each regression, by task; None where a checkpoint will tell.
    """

    target_mean: Tensor
    target_deviation: Tensor

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[Task],
        names: Sequence[str],
        moments: Mapping[str, tuple[Tensor, Tensor]] | None,
    ) -> None:
        super().__init__()
        self.model, self.names = model, [task.name for task in tasks]
        self.places: dict[str, slice] = {}
        start = 0
        for task in tasks:
            if task.name in names:
                self.places[task.name] = slice(start, start + task.outputs)
                start += task.outputs
        mean, deviation = torch.zeros(start), torch.ones(start)
        for name, (middle, width) in (moments or {}).items():
            mean[self.places[name]], deviation[self.places[name]] = middle.float(), width.float()
        self.register_buffer(MEAN, mean)
        self.register_buffer(DEVIATION, deviation)

    def _apply(self, fn: Any, recurse: bool = True) -> InTargetUnits:
        """Move the model; numbers of 16 bits would round what the targets are measured in."""
        kept = {name: self._buffers[name] for name in (MEAN, DEVIATION)}
        super()._apply(fn, recurse)
        for name, numbers in kept.items():
            moved = self._buffers[name]
            assert moved is not None and numbers is not None
            if moved.dtype != numbers.dtype and not moved.is_meta:
                self._buffers[name] = numbers.to(moved.device)
        return self

    def deviation(self, name: str) -> Tensor:
        """Of the targets of a task, (columns,)."""
        return self.target_deviation[self.places[name]]

    def scaled(self, name: str, values: Tensor) -> Tensor:
        """Outputs or targets of a task, (samples, columns) or (samples,), as z = (y − mean) / deviation."""
        if (place := self.places.get(name)) is None:
            return values
        width = place.stop - place.start
        if width > 1 and values.numel() != len(values) * width:  # an output for each of several quantiles
            columns = values.reshape(len(values), -1)
            values = columns.repeat_interleave(width // columns.shape[1], 1)
        return (values - self.target_mean[place]) / self.target_deviation[place]

    def _in_units(self, name: str, z: Any) -> Any:
        place = self.places.get(name)
        # an output of another shape or type, which would be broadcast or made a float here, is refused behind this
        if place is None or not isinstance(z, Tensor) or not z.is_floating_point():
            return z
        width = place.stop - place.start
        if z.ndim == 0 or (z.shape[1:] != (width,) and not (z.ndim == 1 and width == 1)):
            return z
        return z * self.target_deviation[place] + self.target_mean[place]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The model's outputs, those of regressions in the units of the targets."""
        outputs = self.model(*inputs, **named)
        if isinstance(outputs, Mapping):
            return {**outputs, **{name: self._in_units(name, outputs[name]) for name in self.places if name in outputs}}
        return self._in_units(self.names[0], outputs)

    def extra_repr(self) -> str:
        """What `print` tells."""
        return ", ".join(f"{name or 'y'}: {place.stop - place.start}" for name, place in self.places.items())


class Standardized:
    """A loss of standardized numbers: of output and target, both in the units of the target, less mean, by deviation."""

    def __init__(self, loss: Callable[..., Tensor], units: InTargetUnits, name: str) -> None:
        self.loss, self.units, self.name = loss, units, name

    def __call__(self, output: Tensor, target: Tensor, *weighting: Any) -> Tensor:
        """The mean over samples, a scalar; weighted as a `TaskLoss`."""
        return self.loss(self.units.scaled(self.name, output), self.units.scaled(self.name, target), *weighting)

    def of_samples(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, (samples,)."""
        return self.loss.of_samples(self.units.scaled(self.name, output), self.units.scaled(self.name, target))  # type: ignore[attr-defined]


def standardized(
    model: nn.Module, setting: Setting, losses: Mapping[str, Callable[[Tensor, Tensor], Tensor]], precision: str
) -> tuple[nn.Module, dict[str, Standardized]]:
    """The model with its regressions learned with mean 0 and deviation 1, and what is minimized of them.

    A regression whose loss would not mean the same then is left as it is.
    """
    regressions = [task for task in setting.tasks if task.kind == "regression"]
    names = [task.name for task in regressions if depends_on_difference(losses[task.name], task.outputs)]
    moments = None
    if names and (targets := setting.training_targets) is not None:
        found = {name: column_moments(target[name] for target in targets()) for name in names}
        widths = {task.name: task.outputs for task in regressions}
        levels = {task.name: max(1, len(task.quantiles)) for task in regressions}
        found = {
            name: (mean.repeat_interleave(levels[name]), width.repeat_interleave(levels[name]))
            for name, (mean, width) in found.items()
        }
        moments = {name: numbers for name, numbers in found.items() if len(numbers[0]) == widths[name]}
        names = list(moments)  # an output for each column, or the loss will tell
        for mean, deviation in moments.values():
            expect_fine_enough(mean, deviation, precision)
    if not names:
        return model, {}
    units = InTargetUnits(model, setting.tasks, names, moments)
    for name in names:
        if (measure_in := getattr(losses[name], "measure_in", None)) is not None:
            measure_in(partial(units.deviation, name))
    return units, {name: Standardized(losses[name], units, name) for name in names}
