"""What is set for the whole process of a run."""

import random
import warnings

import numpy as np
import pytest
import torch

from recipes.run.process import set_up_process


@pytest.fixture(autouse=True)
def _restored():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    precision = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with warnings.catch_warnings():
        yield
    torch.set_float32_matmul_precision(precision[0])
    torch.backends.cudnn.allow_tf32 = precision[1]
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


def drawn(seed):
    set_up_process({"trainer": {"num_threads": None, "matmul_precision": "highest"}, "seed": seed})
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def test_what_others_draw_follows_from_the_seed():
    found, again = {seed: drawn(seed) for seed in (0, 1, 2**32 + 2, -3)}, drawn(1)
    assert found[1] == again
    for draws in zip(*found.values(), strict=True):
        assert len({tuple(draw) for draw in draws}) == len(found)
