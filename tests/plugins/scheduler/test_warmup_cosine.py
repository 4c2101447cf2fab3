import logging

import numpy as np
import pytest
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from plugins.base import RecipeError
from plugins.scheduler.constant import ConstantRate
from plugins.scheduler.cosine import CosineDecay
from plugins.scheduler.linear import LinearDecay
from plugins.scheduler.one_cycle import OneCycle
from plugins.scheduler.step import StepDecay
from plugins.scheduler.warmup_cosine import WarmupCosine


def test_equals_torchs_line_and_then_its_cosine(make_optimizer, rates):
    ours, torchs, w = make_optimizer(), make_optimizer(), 5
    line, wave = LinearLR(torchs, 1 / (w + 1), total_iters=w), CosineAnnealingLR(torchs, 20 - w)
    expected = rates(torchs, SequentialLR(torchs, [line, wave], [w]), 20)
    np.testing.assert_allclose(rates(ours, WarmupCosine(warmup=w)(ours, 20), 20), expected, rtol=1e-6, atol=1e-12)
    other = make_optimizer()
    assert rates(other, CosineDecay(warmup=w)(other, 20), 25)[20:] == [0.0] * 5


@pytest.mark.parametrize("schedule", [ConstantRate, LinearDecay, CosineDecay, StepDecay])
def test_every_schedule_begins_behind_its_warm_up(make_optimizer, rates, schedule):
    warm, plain = make_optimizer(), make_optimizer()
    got, expected = rates(warm, schedule(warmup=4)(warm, 24), 24), rates(plain, schedule()(plain, 20), 20)
    np.testing.assert_allclose(got[4:], expected, rtol=1e-12)
    np.testing.assert_allclose(got[:4], 0.3 * np.arange(1, 5) / 5, rtol=1e-12)


def test_a_training_shorter_than_the_warm_up_only_rises(make_optimizer, rates):
    optimizer = make_optimizer()
    got = rates(optimizer, WarmupCosine()(optimizer, 10), 10)
    np.testing.assert_allclose(got, 0.3 * np.arange(1, 11) / 101, rtol=1e-12)
    with pytest.raises(RecipeError, match="^warmup must be a whole number ≥ 0"):
        WarmupCosine(warmup=-1)


@pytest.mark.parametrize("schedule", [WarmupCosine(), ConstantRate(warmup=3), WarmupCosine(warmup=2), OneCycle(warmup=1)])
def test_a_warm_up_that_fills_the_training_is_told(problem, caplog, schedule):
    with caplog.at_level(logging.WARNING, "recipes"):
        problem.fit(steps=3, scheduler=schedule)
    told = [record.message for record in caplog.records if "scheduler.warmup" in record.message]
    assert told == [
        f"scheduler.warmup={schedule.warmup} is no shorter than the training of 3 steps: the rate rises to its end; set scheduler.warmup "
        f"below that"
    ] * (schedule.warmup >= 3)
