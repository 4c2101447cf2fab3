"""What a technique is told of the data: tasks, batches, the setting of a run, its phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from plugins.inputs import quantities, some

UNIT = (0.0, 1.0)


LOOKED_AT = 10_000  # samples that tell the range of the inputs


def class_probabilities(target: Tensor, classes: int) -> Tensor:
    """Labels (samples, *places) as probabilities (samples, classes, *places), one at the label; probabilities as they are."""
    if target.is_floating_point():
        return target
    kind = torch.promote_types(torch.get_default_dtype(), torch.float32)  # half precision has no 0.9
    blank = torch.zeros(len(target), classes, *target.shape[1:], dtype=kind, device=target.device)
    return blank.scatter_(1, target.long().unsqueeze(1), 1.0)


def per_label(of_samples: Tensor, labels: Tensor) -> Tensor:
    """One number a sample, (samples,), for each label of a sample, (samples, *places); what is of labels already stays."""
    if of_samples.ndim == labels.ndim:
        return of_samples
    return of_samples.view(len(of_samples), *[1] * (labels.ndim - 1)).expand(labels.shape)


def of_classes(values: Tensor, target: Tensor) -> Tensor:
    """One number a class, (classes,), for each label, (samples, *places); of softened ones, (samples, classes, *places), the mean.

    The mean is no product of matrices, which autocast would round.
    """
    return (target.to(values.dtype).movedim(1, -1) * values).sum(-1) if target.is_floating_point() else values[target.long()]


@dataclass(frozen=True)
class Task:
    """One target to predict: its name ("" when it is the only one), its kind and the number of model outputs.

    `shape` are the places of a sample that each have a label, such as (height, width) of a class map; () where a sample has one.
    The model's outputs are (samples, outputs, *shape) then, labels (samples, *shape).

    Of several labels a sample, kind "multilabel", outputs are logits, one a label, and a label counts as predicted where its probability
    is at least `threshold`. Of a regression that predicts several `quantiles` of each number the outputs are those of the first column, then
    those of the next. `ignored` is the label of a classification that the loss leaves out, which may be the number of a class; no
    metric counts it.
    """

    name: str
    kind: str  # "classification" | "multilabel" | "regression"
    outputs: int
    names: tuple[str, ...] = ()  # of the classes or labels, where they have some
    shape: tuple[int, ...] = ()
    threshold: float = 0.5
    quantiles: tuple[float, ...] = ()
    ignored: int | None = field(default=None, compare=False)  # of the loss, not of the data

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: all but what the loss leaves out, which the loss says again."""
        return {name: value for name, value in asdict(self).items() if name != "ignored"}

    def in_shape(self, target: Tensor, output: Tensor) -> Tensor:
        """The numbers of a regression in the shape of the outputs, so that nothing broadcasts; each once a quantile, where these are several."""
        if self.quantiles and target.numel() * len(self.quantiles) == output.numel():
            target = target.reshape(len(output), -1).repeat_interleave(len(self.quantiles), 1)
        return target.reshape(output.shape)

    @property
    def has_point(self) -> bool:
        """Whether there is one prediction of each number: several quantiles have one where the median is among them."""
        return not self.quantiles or 0.5 in self.quantiles

    def point(self, output: Tensor) -> Tensor:
        """The one prediction of each number, (samples, columns): of several quantiles the median."""
        if not self.quantiles:
            return output
        return output.unflatten(1, (-1, len(self.quantiles)))[:, :, self.quantiles.index(0.5)]

    def probabilities(self, output: Tensor) -> Tensor:
        """Logits (samples, outputs, *shape) as probabilities of classes, or of each of several labels; numbers as they are."""
        if self.kind == "regression":
            return output
        return output.softmax(1) if self.kind == "classification" else output.sigmoid()

    def logits(self, probabilities: Tensor) -> Tensor:
        """Probabilities as logits that :meth:`probabilities` makes them of again; numbers as they are."""
        if self.kind == "regression":
            return probabilities
        kept = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
        if self.kind == "classification":
            return kept
        return kept - (1 - probabilities).clamp_min(torch.finfo(probabilities.dtype).eps).log()

    def decided(self, output: Tensor) -> Tensor:
        """The labels that are predicted, (samples, *shape), of several labels (samples, labels): the most probable class, or each label."""
        if self.kind == "multilabel":
            return output >= math.log(self.threshold / (1 - self.threshold))
        return output.argmax(1)

    def hits(self, output: Tensor, labels: Tensor) -> Tensor:
        """Which labels are predicted right, in their shape; what the loss leaves out is not."""
        right = self.decided(output) == labels
        return right & (labels != self.ignored) if self.ignores_a_class else right

    @property
    def ignores_a_class(self) -> bool:
        """Whether the label that the loss leaves out is the number of a class, such as that of a background."""
        return self.ignored is not None and 0 <= self.ignored < self.outputs

    def known(self, labels: Tensor) -> Tensor:
        """Which labels of a classification name a class that the loss does not leave out, in their shape."""
        known = (labels >= 0) & (labels < self.outputs)
        return known & (labels != self.ignored) if self.ignores_a_class else known


@dataclass
class Batch:
    """What one forward and backward pass sees.

    `x` has shape (samples, *sample shape), raw, with bytes as numbers in [0, 1]; where inputs are several by name it is a dict of
    such tensors, which techniques see that declare `on_named_inputs`. `targets` is what the loss sees, one entry a
    task: labels (samples,), or probabilities (samples, classes) once a technique softens them; of several labels a sample truth values
    (samples, labels), or the probability of each; of class maps labels (samples, *places),
    or probabilities (samples, classes, *places), which techniques see that declare `on_class_maps`. `labels` are the true,
    unmodified targets, for metrics. `extra` carries what a technique keeps from `transform_batch` to `penalty`. In an
    evaluation `positions` says which samples of the split these are. In training `samples`, (samples,), are their numbers in the training split
    and `epoch` counts from 0, where an option `tells_samples_apart`; who takes some of the samples, or others, takes their numbers along.

    `weight` says how much each sample counts in what is minimized, ≥ 0, (samples,), by task; a task that is not there weighs all
    alike. A technique multiplies what is there. The loss of a step is divided by the weights of all its samples, over all
    micro-batches and processes, so only their ratios matter. Samples whose label the loss ignores have the weight 0, and any label
    as their target. Of class maps each place may have a weight of its own, (samples, *places).

    `correction` makes up for how often an option draws each sample, (samples,) ≥ 0, and comes with `samples`: losses are
    multiplied by it, and what they are divided by is not, so that their mean over draws is the mean over the split. Where samples have
    weights, or labels may be ignored, what they are divided by is the sum of the weights times it, so that the ratio tends to that of the split.
    """

    x: Any  # a tensor, or a dict of tensors
    targets: dict[str, Tensor]
    labels: dict[str, Tensor]
    extra: dict[str, Any] = field(default_factory=dict)
    positions: range | None = None
    weight: dict[str, Tensor] = field(default_factory=dict)
    samples: Tensor | None = None
    epoch: int = 0
    correction: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x) if isinstance(self.x, Tensor) else len(some(self.x))

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return some(self.x).device

    def weighted(self, task: str, factor: Tensor) -> dict[str, Tensor]:
        """`weight` with that of a task times a factor, (samples,) or of each label, for `dataclasses.replace(batch, weight=…)`."""
        before = self.weight.get(task)
        if before is None:
            return {**self.weight, task: factor}
        if before.ndim != factor.ndim:
            before, factor = per_label(before, self.labels[task]), per_label(factor, self.labels[task])
        return {**self.weight, task: before * factor}

    def take(self, places: Tensor) -> Batch:
        """Some of the samples, by their places here, with all that is told of them; `extra` stays as it is."""

        def some_of(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value[places] for name, value in named.items()}

        labels = some_of(self.labels)
        same = {task for task, target in self.targets.items() if target is self.labels[task]}
        targets = {task: labels[task] if task in same else target[places] for task, target in self.targets.items()}
        samples, correction = (None if each is None else each[places] for each in (self.samples, self.correction))
        x = self.x[places] if isinstance(self.x, Tensor) else some_of(self.x)
        return replace(
            self, x=x, targets=targets, labels=labels, weight=some_of(self.weight), samples=samples, correction=correction
        )

    def weight_of(self, task: str | None) -> Tensor | None:
        """What a task's samples count, (samples,), or its labels; without a task the mean over all of them, (samples,). None: 1."""
        if task is not None or not self.weight:
            return None if task is None else self.weight.get(task)
        found = [
            self.weight[name].flatten(1).mean(1)
            if name in self.weight and self.weight[name].ndim > 1
            else self.weight.get(name)
            for name in self.labels
        ]
        return torch.stack([torch.ones(len(self), device=self.device) if each is None else each for each in found]).mean(0)

    def counted(self, task: str | None) -> Tensor | None:
        """What values of samples, or labels, are multiplied by: the weight, and what makes up for the draw. None: 1."""
        weight = self.weight_of(task)
        if self.correction is None:
            return weight
        return self.correction if weight is None else weight * per_label(self.correction, weight)


@dataclass(frozen=True)
class Setting:
    """What is known before training: the data's shape and tasks, and how to reach the raw training inputs and targets.

    `training_targets` yields the targets of the training split piece by piece, by task. `may_ignore` tells whether there may be labels
    that the loss ignores, in any split. `tokens`: inputs are whole numbers that stay such, as
    for an embedding. `training_inputs` yields the training split's raw inputs piece by piece; it is None when a finished run is loaded,
    whose fitted values come from the checkpoint. `load_run(folder)` gives the trained module of another run, `load_weights(place)` the
    tensors, by name, of another run or of a file. `restored`: the weights will come from a checkpoint of this run, which goes on.
    `with_weights(weights)` gives this run's module in evaluation mode with other weights; where a later phase of a run begins, `before` has
    the best ones of the phase before. `find_runs(places)` gives the run folders that are named by folders, by those of sweeps, or by patterns. `split`
    is a hash of the data and how they are split, None where it is not known, and `folder` that of a finished run which is loaded.
    `own_samples(split, device)` gives its samples of a split as a loader yields them; `trained_on_validation`: also on those of its validation.
    """

    shape: Any  # of a sample: a tuple, or by name an `Entry` for each of several inputs
    tasks: tuple[Task, ...]
    seed: int = 0
    training_inputs: Callable[[], Iterator[Any]] | None = None
    load_run: Callable[[str], nn.Module] | None = None
    training_targets: Callable[[], Iterator[Mapping[str, Tensor]]] | None = None
    may_ignore: bool = True
    tokens: bool = False
    load_weights: Callable[[str], Mapping[str, Tensor]] | None = None
    restored: bool = False
    with_weights: Callable[[Mapping[str, Tensor]], nn.Module] | None = None
    before: Mapping[str, Tensor] | None = None
    find_runs: Callable[[Sequence[str]], Sequence[str]] | None = None
    split: str | None = None
    folder: str | None = None
    own_samples: Callable[[str, torch.device], Iterator[Any]] | None = None
    trained_on_validation: bool = False

    @property
    def ignored(self) -> dict[str, int]:
        """The labels that the loss leaves out, by task."""
        return {task.name: task.ignored for task in self.tasks if task.ignored is not None}

    @property
    def is_image(self) -> bool:
        """Whether a sample has the shape (channels, height, width)."""
        return not self.is_named and len(self.shape) == 3

    @property
    def is_named(self) -> bool:
        """Whether inputs are several by name."""
        return isinstance(self.shape, Mapping)

    @property
    def has_quantities(self) -> bool:
        """Whether some inputs are numbers that mean a quantity, and do not stand for something, as tokens and masks do."""
        return not self.tokens and (not self.is_named or bool(quantities(self.shape)))

    @property
    def has_maps(self) -> bool:
        """Whether a task has a label for each place of a sample."""
        return any(task.shape for task in self.tasks)

    @cached_property
    def extremes(self) -> tuple[float, float] | None:
        """The smallest and the largest of the raw training inputs, of the first 10,000 samples; None where there are none."""
        known = self.training_inputs and not self.is_named
        pieces, seen, low, high = self.training_inputs() if known else iter(()), 0, math.inf, -math.inf  # type: ignore[misc]
        for piece in pieces:
            low, high = min(low, float(piece.amin())), max(high, float(piece.amax()))
            seen += len(piece)
            if seen >= LOOKED_AT:
                break
        return (low, high) if seen else None

    @property
    def valid_range(self) -> tuple[float, float] | None:
        """The range of valid raw inputs: [0, 1] for images that lie within it; None where there is none, or it is not known."""
        inside = self.is_image and self.extremes and UNIT[0] <= self.extremes[0] and self.extremes[1] <= UNIT[1]
        return UNIT if inside else None


@dataclass(frozen=True)
class Phase:
    """One more fit after the first: early stopping's retrain and continue, curricula.

    `fresh`: start from fresh initial weights (else from the weights as they are). `all_data`: train on training and validation data, of
    which techniques then learn too. `max_steps`: optimizer steps at most. `stop_below`: end once this validation metric falls below the value.
    """

    name: str
    max_steps: int
    fresh: bool = False
    all_data: bool = False
    stop_below: tuple[str, float] | None = None
