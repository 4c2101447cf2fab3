import math
import subprocess
import sys

import pytest
import torch
from torchvision import datasets

from benchmarks.data import ResizedDigits, ours, torchvisions, training_split, write_idx
from tests.command import ROOT

CPU = torch.device("cpu")


@pytest.mark.slow
def test_prints_a_table_of_finite_rates():
    words = ["--rounds", "1", "--samples", "256", "--workers", "0", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("256 images of digits of 28 × 28 pixels, repeated, batch 128, 1 rounds")
    assert [row.split("  ")[0] for row in rows] == ["batch by index", "DataLoader, 0 workers", "DataLoader, 1 workers"]
    for row in rows:
        _, *cells = [cell.strip() for cell in row.split("  ") if cell.strip()]
        rate, factor = float(cells[0].replace(",", "")), float(cells[1])
        assert math.isfinite(rate) and rate > 0 and math.isfinite(factor) and factor > 0


def test_torchvision_reads_the_files(tmp_path):
    _, split = training_split(None, 300)
    write_idx(tmp_path, split)
    for train in (True, False):
        dataset = datasets.FashionMNIST(tmp_path, train=train)
        assert torch.equal(dataset.data, split.x[:, 0]) and torch.equal(dataset.targets, split.targets[""])


def test_both_sides_give_augmented_batches_of_one_kind(tmp_path):
    _, split = training_split(None, 300)
    write_idx(tmp_path, split)
    for epoch in (ours(split, CPU), torchvisions(tmp_path, 0, CPU)):
        batches = list(epoch())
        assert len(batches) == 2
        for x, y in batches:
            assert x.shape == (128, 1, 28, 28) and y.shape == (128,)
            assert x.dtype == torch.float32 and y.dtype == torch.int64
            assert x.min() >= 0 and 0.9 < x.max() <= 1


def test_ours_draws_anew_for_each_step_and_each_sample():
    data = ResizedDigits()
    split, _ = data.load()
    split = split[torch.zeros(128, dtype=torch.long)]  # one image all over
    epoch = ours(split, CPU)
    (first, _), (second, _) = [*epoch(), *epoch()]
    assert not torch.equal(first, second)
    assert len({tuple(image.flatten().tolist()) for image in first}) > 50
