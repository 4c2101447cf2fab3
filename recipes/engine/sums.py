"""Whether a loss is a mean over samples, asked of its values: what accumulation, several devices and batches of an evaluation need.

A step is cut into micro-batches, over devices too, and an evaluation into batches. Each has its mean, and the mean of these, weighted
by their samples, is the loss of the whole if loss(S) = Σ_P |P|/|S| · loss(P) for all divisions of samples S into parts P. It does not
hold with class weights whose sum divides (torch's), for sums, and for what compares samples with each other.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from plugins.base import Task, class_probabilities
from plugins.sites import kept_buffers

Loss = Callable[[Tensor, Tensor], Tensor]
Others = Callable[[Loss, Tensor, Tensor], Iterator[Tensor]]  # values that the loss itself should have

ROWS = 32  # samples in a probe: with more, one class among all of them hardly shows
MOST = 64 * (ROWS - 1)  # classes that are asked about; more would take minutes
DIVISIONS = 2  # of a probe, at random
SHORT = (torch.float16, torch.bfloat16)
TOLERANCE = 5e-6  # relative; sums in float32 differ by 1e-6


def is_mean_over_samples(loss: Loss, output: Tensor, target: Tensor, task: Task) -> bool:
    """Whether the loss of a batch is the mean of the losses of its parts, weighted by their samples.

    It is asked with samples of all classes (of two thousand, where there are more), or with numbers between the smallest and the
    largest of the batch, and with outputs like those of the batch; draws of the loss are the same for each sample. Where values
    are not finite there is no answer: true. A loss that takes no such samples is asked with those of the batch; one that does
    not take parts of these is no mean.

    Args:
        loss: maps outputs and targets to a scalar.
        output: of one batch, (samples, outputs).
        target: of the batch, as the loss takes it.
        task: the target to predict.
    """
    return _holds(loss, output, target, task, _means_of_parts)


def takes_labels_like_probabilities(loss: Loss, output: Tensor, task: Task) -> bool:
    """Whether labels and their one-hot probabilities have the same loss, so that softened targets are on the scale of labels."""
    labels = torch.zeros(len(output), dtype=torch.long, device=output.device)
    return _holds(loss, output, labels, task, _of_one_hot)


def _holds(loss: Loss, output: Tensor, target: Tensor, task: Task, others: Others) -> bool:
    """Whether the loss equals the other values on all probes: with its own draws, or at least with the same ones for each sample."""
    output, target = output.detach(), target.detach()
    if output.dtype in SHORT and isinstance(loss, nn.Module):
        loss = copy.deepcopy(loss).float()
    own = [(output, target)] if len(output) > 1 else []  # for a loss that takes no others
    for probes in (partial(_probes, output, target, task), own.copy):  # made when they are needed: all together may be large
        try:
            with _quiet(loss, output):
                return any(
                    all(_equal(partial(_value, loss, draws), *probe, others) for probe in probes()) for draws in (False, True)
                )
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
            continue
    return False


def _equal(value: Loss, output: Tensor, target: Tensor, others: Others) -> bool:
    if output.dtype in SHORT:
        try:
            value(output.float(), target)
            output = output.float()
        except (RuntimeError, ValueError, TypeError):  # it has 16-bit numbers of its own
            pass
    tolerance = 4 * torch.finfo(output.dtype).eps if output.dtype in SHORT else TOLERANCE
    whole, found = value(output, target).double(), torch.stack(list(others(value, output, target))).double()
    found = found[found.isfinite()]
    allowed = tolerance * torch.maximum(whole.abs(), found.abs()) + 1e-7
    return bool(~whole.isfinite() | ((whole - found).abs() <= allowed).all())


def _value(loss: Loss, equal_draws: bool, output: Tensor, target: Tensor) -> Tensor:
    """The loss, which draws the same numbers each time."""
    random.seed(0)
    np.random.seed(0)
    _seed(0)
    with EqualDraws() if equal_draws else nullcontext():
        return loss(output, target)


def _seed(seed: int) -> None:
    """Seed the generators of this process: far cheaper than torch.manual_seed, which visits every backend."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def _means_of_parts(value: Loss, output: Tensor, target: Tensor) -> Iterator[Tensor]:
    """Means over two unequal parts, drawn at random, some times."""
    n, generator = len(output), torch.Generator().manual_seed(0)
    for division in range(DIVISIONS):
        order = torch.randperm(n, generator=generator).to(output.device)
        cut = max(1, n // (8 - 4 * division))  # a small part: its mean lies far from that of the whole
        yield sum(len(part) / n * value(output[part], target[part]) for part in (order[:cut], order[cut:]))  # type: ignore[misc]


def _of_one_hot(value: Loss, output: Tensor, labels: Tensor) -> Iterator[Tensor]:
    yield value(output, _one_hot(output, labels))


def _one_hot(output: Tensor, labels: Tensor) -> Tensor:
    return class_probabilities(labels, output.shape[1]).to(output.dtype)


def _probes(output: Tensor, target: Tensor, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and targets of several samples: at least two, of different classes or numbers, all classes among them."""
    generator = torch.Generator().manual_seed(0)
    if task.kind != "classification":
        rows = torch.arange(max(16, min(len(output), ROWS))) % len(output)
        low, high = target.float().min(), target.float().max()
        if low == high:
            low, high = low - 1, high + 1
        drawn = low + (high - low) * torch.rand(len(rows), *target.shape[1:], generator=generator).to(target.device)
        targets = target[rows].where(
            (torch.arange(len(rows)) % 2 == 0).to(target.device).view(-1, *[1] * (target.ndim - 1)), drawn
        )
        yield _varied(output[rows], generator), targets.to(target.dtype)
        return
    classes = torch.arange(1, task.outputs)
    if len(classes) > MOST:
        classes = 1 + torch.randperm(task.outputs - 1, generator=generator)[:MOST]
    for others in classes.split(ROWS - 1):
        labels = torch.cat([torch.zeros(1, dtype=torch.long), others])  # the first class is in each probe: all are compared
        labels = torch.cat([labels, labels[torch.randint(len(labels), (ROWS - len(labels),), generator=generator)]])
        outputs = _varied(output[torch.arange(len(labels)) % len(output)], generator)
        labels = labels.to(target.device)
        if task.shape:  # maps of one class each, but for one place
            labels = labels.view(-1, *[1] * len(task.shape)).repeat(1, *outputs.shape[2:])
            labels.flatten(1)[:, 0] = labels.flatten(1)[:, 0].roll(1)
        if not target.is_floating_point():
            yield outputs, labels.to(target.dtype) if target.dtype != torch.bool else labels.bool()
        else:
            soft = torch.rand(outputs.shape, generator=generator).to(outputs.device).softmax(1)
            yield outputs, (0.5 * (_one_hot(outputs, labels) + soft)).to(target.dtype)


def _varied(output: Tensor, generator: torch.Generator) -> Tensor:
    """Outputs of their own kind that differ from each other: probabilities, their logarithms, numbers in [0, 1], or any numbers."""
    noise = torch.rand(output.shape, generator=generator).to(output)
    if output.shape[1] > 1:
        shares = (4 * noise.float()).softmax(1).to(output)
        if (output >= 0).all() and ((output.float().sum(1) - 1).abs() <= 1e-2).all():
            return 0.5 * (output + shares)
        if are_log_probabilities(output):
            return (0.5 * (output.exp() + shares)).log()
    if (output >= 0).all() and (output <= 1).all() and output.any():
        return 0.5 * (output + noise)
    return output + (2 * noise - 1) * output.float().abs().mean().clamp_min(4).to(output)


def are_log_probabilities(output: Tensor) -> bool:
    """Whether the exponentials of each sample's outputs add up to 1."""
    return bool((output.float().logsumexp(1).abs() <= 1e-2).all())


@contextmanager
def _quiet(loss: Loss, output: Tensor) -> Iterator[None]:
    """No gradient, no rounding by autocast, no warning, and random numbers and buffers of the loss as they were."""
    states = random.getstate(), np.random.get_state()
    devices = [output.device] if output.is_cuda else []
    module = loss if isinstance(loss, nn.Module) else nn.Module()
    with (
        torch.no_grad(),
        torch.autocast(output.device.type, enabled=False),
        torch.random.fork_rng(devices),
        kept_buffers(module),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


class EqualDraws(TorchDispatchMode):
    """Let each sample get the same random numbers, however many there are: the k-th draw is a function of k, for each row alike."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Draw row by row, always beginning anew."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.draws += 1

        def draw(*args: Any) -> Any:
            _seed(self.draws)
            if kwargs.get("generator") is not None:  # one of the loss's own stays as it was
                kwargs["generator"] = torch.Generator(kwargs["generator"].device).manual_seed(self.draws)
            return func(*args, **kwargs)

        if "randperm" in str(func):
            return draw(*args)
        first = args[0] if args else None
        if not isinstance(first, Tensor):  # a shape
            drawn = draw(*args)
            return drawn[:1].expand_as(drawn).clone() if drawn.ndim else drawn
        if not first.ndim or len(first) < 2:
            return draw(*args)
        n = len(first)
        rows = [
            draw(*(arg[i : i + 1] if isinstance(arg, Tensor) and arg.ndim and len(arg) == n else arg for arg in args))
            for i in range(n)
        ]
        if func._schema.is_mutable:
            return first
        if isinstance(rows[0], tuple):
            return tuple(torch.cat(column) for column in zip(*rows, strict=True))
        return torch.cat(rows)
