"""What a rank does that is a fork."""

import os

import torch

from recipes.cli import start
from tests.ranks import alone

THREADS = {"3": 3, "": 3, "4,2": 4, " 02 ": 2, "many": 2, "0": 2}


def found():
    seen = []

    def look():
        seen.append(torch.get_num_threads())
        return {}

    start.start = look
    for value in THREADS:
        os.environ["OMP_NUM_THREADS"] = value
        start.as_rank({})
    return seen


def test_the_threads_of_a_fork_are_those_of_its_environment():
    assert alone(found) == list(THREADS.values())
