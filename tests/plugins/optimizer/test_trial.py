"""What is found of an optimizer by some steps on a small layer."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.optimizer._trial import Trial, try_out


class Noisy(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.add_(torch.randn_like(weight), alpha=1e-3)
        return loss


class Drawing(torch.optim.SGD):
    """Draws from a generator that no seed of torch's sets."""

    def __init__(self, params, draw, lr=0.1):
        super().__init__(params, lr)
        self.draw = draw

    def step(self, closure=None):
        self.draw()
        return super().step(closure)


class OneRate(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.01
        return super().step(closure)


class Forgetful(torch.optim.SGD):
    """Keeps what it has done beside its state."""

    done = 0

    def step(self, closure=None):
        self.done += 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.done
        return super().step(closure)


class TwoPasses(torch.optim.SGD):
    def step(self, closure=None):
        with torch.enable_grad():
            closure()
        return super().step(closure)


class Odd(torch.optim.SGD):
    def state_dict(self):
        return super().state_dict() | {"kept": nn.Linear(1, 1)}


@pytest.mark.parametrize(
    "make", [partial(torch.optim.SGD, lr=0.1, momentum=0.9), torch.optim.Adam, partial(torch.optim.AdamW, lr=0)]
)
def test_optimizers_of_torch_can_be_relied_on(make):
    assert try_out(make) == Trial(draws=False, rates_apart=make.keywords.get("lr") != 0 if isinstance(make, partial) else True)


def test_what_it_draws_and_whose_rates_it_heeds():
    before = torch.get_rng_state()
    assert try_out(partial(Noisy, lr=0.1)) == Trial(draws=True, rates_apart=True)
    assert try_out(partial(OneRate, lr=0.1)) == Trial(draws=False, rates_apart=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_draws_of_python_and_numpy_are_refused_and_leave_no_trace(draw):
    before = random.getstate(), np.random.get_state()[2]
    with pytest.raises(RecipeError, match="draws from the generator of Python or numpy"):
        try_out(partial(Drawing, draw=draw))
    assert (random.getstate(), np.random.get_state()[2]) == before


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Forgetful, "its state does not hold all that it needs"),
        (TwoPasses, "it asks for gradients 8 times in 4 steps"),
        (Odd, "its state cannot be saved and loaded"),
    ],
)
def test_what_no_run_could_rely_on_is_refused(kind, told):
    with pytest.raises(RecipeError, match=told):
        try_out(partial(kind, lr=0.1))
