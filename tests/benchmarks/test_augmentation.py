import math
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from benchmarks.augmentation import KORNIA, SAMPLES, SHAPES, TORCHVISION, kornias, ours, torchvisions
from recipes.config.catalogue import Catalogue
from tests.command import ROOT

OPTIONS, CPU = Catalogue().groups["augmentation"], torch.device("cpu")


@pytest.mark.slow
def test_prints_a_table_of_finite_numbers():
    words = ["--rounds", "2", "--only", "crop", "alternating_flip", "horizontal_flip"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.augmentation", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("batch of 256 × 3 × 32 × 32, 2 rounds, torch ")
    assert [row.split()[0] for row in rows] == ["crop", "alternating_flip", "horizontal_flip"]
    for row in rows:
        numbers = [float(cell) for cell in row.split()[1:] if cell != "to"]
        assert numbers and all(math.isfinite(number) and number > 0 for number in numbers)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_augmentation_is_measured_with_new_draws(name):
    step, shape = ours(OPTIONS[name], CPU)
    first, second = step(), step()
    assert len(first) == SAMPLES and first.x.shape[2:] == second.x.shape[2:]
    assert name == "alternating_flip" or shape != SHAPES[0] or not same(first, second)


def same(first, second):
    """Whether two batches, and what was made beside them, are equal."""
    return all(map(torch.equal, (first.x, *first.extra.values()), (second.x, *second.extra.values())))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*KORNIA, *TORCHVISION} & set(OPTIONS)))
def test_the_others_change_each_image_by_a_draw_of_its_own(name):
    x, labels = torch.rand(1, *SHAPES[0]).expand(SAMPLES, -1, -1, -1).clone(), torch.arange(SAMPLES) % 10
    sides = [torchvisions(TORCHVISION[name], x)] if name in TORCHVISION else []
    if name in KORNIA and find_spec("kornia"):
        sides.append(kornias(KORNIA[name], x, labels))
    for side in sides:
        out = side()
        images = out[0] if isinstance(out, (tuple, list)) else out
        assert images.shape == x.shape
        mixes = "mix" in name and name != "augmix"  # of equal images there is nothing to be seen
        assert mixes or len(images.flatten(1).unique(dim=0)) > 1
