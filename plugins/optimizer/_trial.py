"""An optimizer that nobody here knows, tried out on a small layer: whether a run can rely on it."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import RecipeError

STEPS = 4
Make = Callable[[list[dict[str, Any]]], Optimizer]


class Layer:
    """A layer of fixed weights that learns to return 0, its weights and its bias in a group each."""

    def __init__(self, make: Make) -> None:
        self.weights = [nn.Parameter(torch.arange(12.0).sin().view(3, 4)), nn.Parameter(torch.arange(3.0).cos())]
        self.x = torch.arange(20.0).cos().view(5, 4)
        self.optimizer = make([{"params": [weight]} for weight in self.weights])
        self.calls, self.draws = 0, False

    def closure(self) -> Tensor:
        """A forward and a backward pass."""
        self.calls += 1
        for weight in self.weights:
            weight.grad = None
        loss = nn.functional.linear(self.x, *self.weights).square().mean()
        loss.backward()
        return loss.detach()

    def train(self, first: int, last: int) -> None:
        """Make steps; whatever is drawn depends on the step alone, as in a run."""
        for step in range(first, last):
            torch.manual_seed(step)
            before = torch.get_rng_state()
            self.optimizer.step(self.closure)  # type: ignore[arg-type]
            self.draws |= not torch.equal(before, torch.get_rng_state())

    def go_on_from(self, other: Layer) -> None:
        """Take up its weights and, as a checkpoint holds it, the state of its optimizer."""
        file = io.BytesIO()
        torch.save(other.optimizer.state_dict(), file)
        file.seek(0)
        with torch.no_grad():
            for mine, weight in zip(self.weights, other.weights, strict=True):
                mine.copy_(weight)
        self.optimizer.load_state_dict(torch.load(file, weights_only=True))


@dataclass(frozen=True)
class Trial:
    """What was found.

    Attributes:
        draws: whether it draws from torch's generator, so that each process would draw something else.
        rates_apart: whether each parameter group has a learning rate of its own.
    """

    draws: bool
    rates_apart: bool


def _generators() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state()))


@contextmanager
def _left_as_they_are() -> Iterator[None]:
    """Python's and numpy's random state as it was, whatever is drawn within."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def try_out(make: Make) -> Trial:
    """Make some steps, and half of them, resumed.

    Raises:
        RecipeError: it has no learning rate; it asks for gradients more or less than once a step; it draws from the generator of Python or
            numpy; its state cannot be saved, or resumed it goes elsewhere.
    """
    with torch.random.fork_rng(devices=[]), _left_as_they_are(), torch.enable_grad():
        before = _generators()
        whole = Layer(make)
        if any(group.get("lr") is None for group in whole.optimizer.param_groups):
            raise RecipeError("it has no learning rate that a schedule could change: type optimizer.lr=0.001 if it takes one")
        whole.train(0, STEPS)
        if whole.calls != STEPS:
            raise RecipeError(f"it asks for gradients {whole.calls} times in {STEPS} steps, and here it gets them once a step")
        if _generators() != before:
            raise RecipeError("it draws from the generator of Python or numpy, of which no checkpoint holds the state")
        begun, resumed = Layer(make), Layer(make)
        begun.train(0, STEPS // 2)
        try:
            resumed.go_on_from(begun)
        except Exception as error:
            raise RecipeError(
                f"its state cannot be saved and loaded, so no run could be resumed ({type(error).__name__})"
            ) from None
        resumed.train(STEPS // 2, STEPS)
        if not _same(whole, resumed):
            raise RecipeError("its state does not hold all that it needs: a run that is resumed would end with other weights")
        return Trial(whole.draws, _rates_apart(make, whole))


def _rates_apart(make: Make, whole: Layer) -> bool:
    slower = Layer(make)
    slower.optimizer.param_groups[1]["lr"] *= 0.5
    try:
        slower.train(0, STEPS)
    except Exception:  # some refuse it themselves
        return False
    return not torch.equal(slower.weights[1], whole.weights[1])


def _same(first: Layer, second: Layer) -> bool:
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first.weights, second.weights, strict=True))
