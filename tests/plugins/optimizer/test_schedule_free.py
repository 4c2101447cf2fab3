import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.base import Plugin, RecipeError, Refusal, Stage
from plugins.optimizer.schedule_free import ScheduleFreeAdamW
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.engine.module import RecipeModule
from tests.harness import build, config_of
from tests.recipes.engine.test_module import fit, samples


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"warmup_steps": 4, "betas": (0.7, 0.9)}, {"lr": 0.0}])
def test_equals_the_authors(settings):
    theirs_kind = pytest.importorskip("schedulefree").AdamWScheduleFree
    settings = {"lr": 0.05, **settings}
    ours = [nn.Parameter(torch.randn(4, 3, dtype=torch.float64)), nn.Parameter(torch.randn(5, dtype=torch.float64))]
    theirs = copy.deepcopy(ours)
    mine, reference = ScheduleFreeAdamW(ours, **settings), theirs_kind(theirs, **settings)
    reference.train()
    for _ in range(12):
        for own, other in zip(ours, theirs, strict=True):
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
        mine.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    reference.eval()
    before = copy.deepcopy(ours)
    with mine.evaluation_weights(holder(ours)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(own, kept) for own, kept in zip(ours, before, strict=True))


def holder(parameters):
    """A module of the engine's that has these parameters."""
    model = nn.Module()
    model.parameters_ = nn.ParameterList(parameters)
    module = nn.Module()
    module.model = model
    return module


def test_gradients_are_taken_between_the_average_and_the_last_point():
    """By the definition, with x kept apart: x is the mean of z weighted by ε², and y = (1 − β) z + β x."""
    beta, rho, lr, warmup = 0.6, 0.8, 0.1, 3
    y = torch.randn(6, dtype=torch.float64)
    weights, z, x, second, total = nn.Parameter(y.clone()), y.clone(), y.clone(), torch.zeros_like(y), 0.0
    optimizer = ScheduleFreeAdamW([weights], lr=lr, betas=(beta, rho), warmup_steps=warmup)
    for k in range(1, 9):
        gradient = torch.randn_like(y)
        weights.grad = gradient.clone()
        optimizer.step()
        rate = lr * min(1, k / warmup)
        second = rho * second + (1 - rho) * gradient**2
        z = z - rate * gradient / ((second / (1 - rho**k)).sqrt() + 1e-8)
        total += rate**2
        x = x + rate**2 / total * (z - x)
        torch.testing.assert_close(weights.detach(), (1 - beta) * z + beta * x, rtol=1e-10, atol=1e-12)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def test_what_is_evaluated_and_left_is_the_average_with_statistics_of_its_own():
    split = samples(40)
    make = partial(ScheduleFreeAdamW, lr=0.05)
    module = RecipeModule(Net(), functional.cross_entropy, make)
    loader = StepLoader(split, 8, 0)
    fit(module, loader, validation=EvaluationLoader(split, 20), steps=10, num_sanity_val_steps=0, check_val_every_n_epoch=1)
    optimizer = module.of_optimizer[0]
    assert optimizer.in_place
    model = module.model
    with torch.no_grad():
        hidden = [model[0](x) for x, _ in loader.evaluation_batches(40)]
    means = torch.stack([part.mean(0) for part in hidden])
    torch.testing.assert_close(model[1].running_mean, means.mean(0), rtol=1e-5, atol=1e-6)
    model.eval()
    loss = functional.cross_entropy(model(split.x), split.targets[""])
    assert module.metrics["val/loss"] == pytest.approx(float(loss), rel=1e-5)


class Rest(Plugin):
    """Has the norm layer rest from the fifth step on."""

    stage = Stage.FINETUNING

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.model[1].train(pl_module.steps_done < 4)


def test_a_run_that_is_resumed_after_a_layer_came_to_rest_evaluates_the_same_statistics(problem, weights, same, tmp_path):
    make = partial(ScheduleFreeAdamW, lr=0.05)
    whole = problem.fit(Rest(), steps=16, optimizer=make, save=(tmp_path / "half.ckpt", 8))
    resumed = problem.fit(Rest(), steps=16, optimizer=make, resume=tmp_path / "half.ckpt")
    assert same(weights(whole), weights(resumed))


def test_a_schedule_is_refused_and_so_is_another_average():
    told = "optimizer/schedule_free takes the place of a schedule: take scheduler=constant"
    for scheduler in ("linear", "one_cycle", "cosine"):
        with pytest.raises(Refusal, match=told):
            build(config_of(["optimizer/schedule_free", f"scheduler/{scheduler}"]))
    build(config_of(["optimizer/schedule_free"]))
    make = partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    module = RecipeModule(Net(), functional.cross_entropy, ScheduleFreeAdamW, lambda optimizer, steps: make(optimizer))
    with pytest.raises(Refusal, match=told):
        fit(module, StepLoader(samples(16), 8, 0), steps=2)
    with pytest.raises(RecipeError, match="averaging/ema and optimizer/schedule_free both define evaluation_weights"):
        build(config_of(["optimizer/schedule_free", "averaging/ema"]))


@pytest.mark.parametrize(
    "wrong", [{"lr": -1}, {"betas": [0.0, 0.9]}, {"betas": [0.9, 1.0]}, {"betas": [0.9]}, {"warmup_steps": -1}, {"eps": -1}]
)
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        ScheduleFreeAdamW([nn.Parameter(torch.zeros(2, 2))], **wrong)
