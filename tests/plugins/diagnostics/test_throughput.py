import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from plugins.diagnostics.throughput import Throughput


class Slow(Dataset):
    """Samples, the reading of each of which takes a while."""

    def __init__(self, n, seconds):
        self.n, self.seconds = n, seconds
        self.x, self.y = torch.randn(n, 6), torch.randint(3, (n,))

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return self.x[index], self.y[index]


def test_tells_how_fast_it_is_and_that_it_waits_for_data(problem):
    problem.fit(Throughput(every_n_steps=4), loader=DataLoader(Slow(64, 0.005), batch_size=8))
    assert [row["at"] for row in problem.log.rows if "throughput/waiting" in row] == [4, 8]
    samples, steps, waiting = (
        problem.log.series(f"throughput/{name}") for name in ("samples_per_second", "steps_per_second", "waiting")
    )
    assert samples == pytest.approx([8 * each for each in steps], rel=1e-5)
    assert all(each < 1 / 0.04 for each in steps)  # a batch takes 40 ms at least
    assert all(each * 0.04 < share <= 1 for each, share in zip(steps, waiting, strict=True))


def test_validations_are_no_waiting(problem):
    problem.validation = DataLoader(Slow(8, 0.03), batch_size=8)
    began = time.perf_counter()
    problem.fit(Throughput(every_n_steps=8), val_check_interval=2, limit_val_batches=1)
    trained = time.perf_counter() - began - 4 * 0.24  # at most: a validation takes 0.24 s at least, however busy the machine is
    (steps,), (waiting,) = (problem.log.series(f"throughput/{name}") for name in ("steps_per_second", "waiting"))
    assert 7 / steps < trained and waiting <= 1


def test_a_short_training_is_told_at_its_end(problem):
    problem.fit(Throughput(every_n_steps=100))
    (steps,) = problem.log.series("throughput/steps_per_second")
    assert steps > 0 and problem.log.series("throughput/memory") == []
