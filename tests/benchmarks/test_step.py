import copy
import math
import subprocess
import sys

import pytest
import torch

from benchmarks.step import ALPHA, CUTOUT, Draws, Engine, choose_data, configuration, hand_written
from plugins.augmentation._mixing import symmetric_beta
from plugins.base import derive_seed
from tests.command import ROOT


@pytest.mark.slow
def test_prints_a_table_of_finite_numbers():
    words = ["--rounds", "2", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.step", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("torch ")
    cells = [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows]
    assert [row[:4] for row in cells] == [
        ["mlp, batch 32", "digits", "bare", "2 × 2"],
        ["mlp, batch 32", "digits", "five techniques", "2 × 2"],
        ["cnn, batch 128", "digits, 28 × 28", "bare", "2 × 2"],
        ["cnn, batch 128", "digits, 28 × 28", "five techniques", "2 × 2"],
    ]
    for row in cells:
        engine, hand, ratio = map(float, row[4:7])
        assert all(math.isfinite(number) and number > 0 for number in (engine, hand, ratio))


def engines_draws(step, images):
    """What the engine draws in a step, from the generators of its techniques."""
    samples, _, height, width = images.shape
    cutout, mixup = (torch.Generator().manual_seed(derive_seed(0, owner, step, 0)) for owner in ("cutout", "mixup"))
    rows, columns = (torch.randint(n, (samples,), generator=cutout) for n in (height, width))
    partner = torch.randperm(samples, generator=mixup)
    return Draws(rows, columns, partner, symmetric_beta(ALPHA, samples, images.device, mixup))


@pytest.mark.parametrize("techniques", [False, True], ids=["bare", "five techniques"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_both_loops_do_the_same_mathematics(model, techniques, tmp_path):
    steps = 5
    _, data = choose_data(model, None)
    engine = Engine(configuration(model, techniques, "cpu", 1, steps), data, tmp_path)
    twin = copy.deepcopy(engine.module.model)
    before = copy.deepcopy(engine.module.model.state_dict())
    split, taken = data.splits["train"], iter(range(steps))
    average = []
    loop = hand_written(
        twin,
        split.x,
        split.targets[""],
        engine.batches(split.x.device),
        engine.config["optimizer"]["lr"],
        CUTOUT[model] if techniques else 0,
        lambda images: engines_draws(next(taken), images),
        average,
    )
    for _ in range(steps):
        loss, accuracy = next(loop)
    engine.fit()
    running = engine.module.recorder.running()
    assert running["loss"] == pytest.approx(float(loss), rel=1e-4)
    assert running["acc"] == pytest.approx(float(accuracy), abs=1e-6)
    trained = engine.module.model.state_dict()
    names = [name for name, _ in twin.named_parameters()]
    # the average, where there is one, is what a training leaves in the model
    weights = dict(zip(names, average if techniques else [weight.detach() for weight in twin.parameters()], strict=True))
    for name, value in weights.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-6)
        assert not torch.equal(trained[name], before[name])
