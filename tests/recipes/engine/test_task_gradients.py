"""The gradients of several tasks: over micro-batches and processes those of the whole batch, beside penalties and loss scaling."""

import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from plugins.base import Plugin, RecipeError, Setting, Stage
from plugins.multitask._heads import MultiTask
from plugins.multitask.equal import EqualWeights
from plugins.regularizer.l2 import L2Penalty
from recipes.engine.module import RecipeModule
from recipes.engine.task_gradients import TaskGradients
from tests.plugins.multitask.three_tasks import BESIDE, CASES, OURS, SETTING, STATEFUL, TASKS, characters, fit, net, train_all
from tests.ranks import on_ranks


class Summed(MultiTask):
    """Equal weights, by way of the gradients."""

    group, option = "multitask", "summed"

    def aggregate(self, gradients, module):
        return gradients.sum(0)


def state(module):
    return {name: value.clone() for name, value in module.model.state_dict().items()}


def assert_close(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], **{"rtol": 1e-4, "atol": 1e-6, **tolerance})


# ------------------------------------------------------------------ accumulation and processes


@pytest.fixture(scope="module")
def trained():
    """The same cases on one process and on two."""
    seed = torch.seed() % 2**32
    return seed, train_all(seed), on_ranks(2, train_all, seed)


@pytest.mark.parametrize("case", [case for case in CASES if case[1] != "all"], ids=str)
def test_two_processes_equal_one_with_the_whole_batch(case, trained):
    """So do their micro-batches, and what they log."""
    name, beside, _ = case
    _, one, (first, second) = trained
    weights, logged = one[name, beside, 1]
    assert_close(first[case][0], weights)
    assert_close(one[case][0], weights)
    assert (
        len(logged) >= 6
        and first[case][1] == pytest.approx(logged, abs=1e-4)
        and one[case][1] == pytest.approx(logged, abs=1e-4)
    )
    assert all(torch.equal(value, second[case][0][key]) for key, value in first[case][0].items())


def test_what_is_learned_of_tasks_is_learned_in_parts_of_weights_too(trained):
    """With trainer=fsdp, where each process keeps a part of it."""
    _, one, (first, second) = trained
    assert_close(first["fsdp"], one["uncertainty", "sam", 1][0])
    assert all(torch.equal(value, second["fsdp"][key]) for key, value in first["fsdp"].items())


@pytest.mark.parametrize("name", OURS)
def test_two_processes_equal_one_with_as_many_parts_for_what_draws(name, trained):
    seed, one, (first, second) = trained
    assert_close(first[name, "all", 1][0], one[name, "all", 2][0])
    four = fit(net(), characters(seed), OURS[name](), *BESIDE["all"](), parts=4)
    assert_close(first[name, "all", 2][0], state(four))
    assert all(torch.equal(value, second[name, "all", 2][0][key]) for key, value in first[name, "all", 2][0].items())


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_sum_of_the_gradients_is_the_gradient_of_the_sum(beside, parts):
    summed, equal = (fit(net(), characters(0), kind(), *BESIDE[beside](), parts=parts) for kind in (Summed, EqualWeights))
    assert_close(state(summed), state(equal))
    assert summed.log.series("step/loss") == pytest.approx(equal.log.series("step/loss"), rel=1e-5)


# ------------------------------------------------------------------ which parameters


class Branches(nn.Module):
    """Of three tasks two share a layer, all share the first, one is in front of no other; something is frozen, something unused."""

    def __init__(self):
        super().__init__()
        self.first, self.middle = nn.Linear(3, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2), "c": nn.Linear(4, 2)})
        self.frozen, self.unused = nn.Linear(4, 4).requires_grad_(False), nn.Linear(2, 2)

    def forward(self, x):
        h = self.first(x)
        deep = self.middle(self.frozen(h)).tanh()
        return {"a": self.heads["a"](deep), "b": self.heads["b"](deep), "c": self.heads["c"](h)}


def losses_of(model, x):
    return {name: out.square().mean() for name, out in model(x).items()}


def test_each_parameter_gets_the_gradient_of_the_tasks_that_reach_it():
    model, x, seen = Branches(), torch.randn(5, 3), []
    weight = torch.tensor([2.0, 3, 5])

    def aggregate(gradients):
        seen.append(gradients.shape)
        return weight @ gradients

    gradients = TaskGradients(list(model.parameters()), ["a", "b", "c"])
    for piece in (x[:2], x[2:]):
        penalty = model.middle.weight.square().sum() + model.unused.weight.sum()
        gradients.add(losses_of(model, piece), penalty, len(piece) / 5)
    gradients.write(aggregate)
    assert seen == [(3, 16 + 20)]
    again = copy.deepcopy(model)
    losses = losses_of(again, x)
    shared = [*again.first.parameters(), *again.middle.parameters()]
    own = [*again.heads.parameters()]
    (2 * losses["a"] + 3 * losses["b"] + 5 * losses["c"]).backward(inputs=shared, retain_graph=True)
    sum(losses.values()).backward(inputs=own)
    again.middle.weight.grad += 2 * again.middle.weight.detach()
    again.unused.weight.grad = torch.ones(2, 2)
    for (name, found), expected in zip(model.named_parameters(), again.parameters(), strict=True):
        if expected.grad is None:
            assert found.grad is None, name
        else:
            torch.testing.assert_close(found.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_may_be_written_into():
    """Autograd gives one tensor to several parameters, or one number as a whole matrix."""
    one, two, three = (nn.Parameter(torch.randn(4, 3)) for _ in range(3))
    gradients = TaskGradients([one, two, three], ["a", "b"])
    gradients.add({"a": (one + two).square().sum(), "b": three.sum()}, None, 1.0)
    gradients.write(lambda rows: rows.sum(0))
    before = two.grad.clone()
    one.grad.mul_(2)
    three.grad.mul_(torch.randn(4, 3))
    assert torch.equal(two.grad, before)


def test_tasks_that_share_nothing_are_not_aggregated():
    one, two = (nn.Parameter(torch.randn(3)) for _ in range(2))
    gradients = TaskGradients([one, two], ["a", "b"])
    gradients.add({"a": one.square().sum(), "b": two.sum()}, None, 1.0)
    gradients.write(None)
    torch.testing.assert_close(one.grad, 2 * one.detach())


@pytest.mark.parametrize("wrong", [lambda rows: rows, lambda rows: rows[0][:-1], lambda rows: None])
def test_what_is_no_gradient_is_told(wrong):
    weight = nn.Parameter(torch.randn(3))
    gradients = TaskGradients([weight], ["a", "b"])
    gradients.add({"a": weight.square().sum(), "b": weight.sum()}, None, 1.0)
    with pytest.raises(RecipeError, match=r"aggregate must make one gradient \(3,\) of \(2, 3\), got"):
        gradients.write(wrong)


# ------------------------------------------------------------------ precision


def test_aggregate_sees_gradients_as_they_are_and_parameters_get_scaled_ones():
    class Nonlinear:
        """What is no multiple of a scaled gradient."""

        def __call__(self, rows):
            self.rows = rows
            return rows.square().sum(0)

    found = {}
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        weight, alone = nn.Parameter(torch.arange(3.0)), nn.Parameter(torch.ones(2))
        gradients, aggregate = TaskGradients([weight, alone], ["a", "b"], scaler), Nonlinear()
        gradients.add({"a": weight.square().sum(), "b": weight.sum() + alone.sum()}, weight.pow(3).sum(), 0.5)
        gradients.write(aggregate)
        found[scaler] = aggregate.rows, weight.grad, alone.grad
    (plain, *of_plain), (scaled, *of_scaled) = found.values()
    assert torch.equal(plain, scaled)
    assert all(torch.equal(1024 * one, other) for one, other in zip(of_plain, of_scaled, strict=True))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("parts", [1, 2])
def test_loss_scaling(name, parts):
    """With 16-bit gradients, which would vanish without it: updates like those of float32, and a step with an overflow is left out."""
    split, model = characters(0), net()
    model[3].weight.data /= 100
    plain = fit(model, split, OURS[name](), parts=parts)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled = fit(model, split, OURS[name](), parts=parts, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    for key, value in state(scaled).items():
        moved, expected = value - fit(model, split, OURS[name](), steps=0).model.state_dict()[key], state(plain)[key] - value
        assert moved.norm() > 0 and expected.norm() < 0.05 * moved.norm() + 1e-4, key
    high = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    kept = fit(model, split, OURS[name](), parts=parts, steps=1, plugins=[MixedPrecision("16-mixed", "cpu", high)])
    assert high.get_scale() < 2.0**40
    assert_close(state(kept), state(fit(model, split, OURS[name](), steps=0)), rtol=0, atol=0)


@pytest.mark.parametrize("name", OURS)
def test_bf16(name):
    split, model = characters(0), net()
    seen = []

    class Watched(OURS[name]):
        option = name

        def aggregate(self, gradients, module):
            seen.append((gradients.dtype, (gradients @ gradients.T).dtype))
            return super().aggregate(gradients, module)

    half = fit(model, split, Watched(), precision="bf16-mixed")
    assert seen == [(torch.float32, torch.float32)] * 3
    assert_close(state(half), state(fit(model, split, OURS[name]())), rtol=0.1, atol=0.02)


# ------------------------------------------------------------------ beside others


def test_callbacks_are_told_of_gradients():
    calls = []

    class Watch(L.Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            calls.append("clear")

        def on_before_backward(self, trainer, module, loss):
            calls.append(("before", float(loss.detach()) > 0))

        def on_after_backward(self, trainer, module):
            calls.append(("after", all(parameter.grad is not None for parameter in module.parameters())))

    class Own(RecipeModule):
        told = 0

        def on_after_backward(self):
            self.told += 1

    module = fit(net(), characters(0), Summed(), L2Penalty(0.1), Watch(), parts=2, kind=Own)
    assert calls == 3 * ["clear", ("before", True), ("before", True), ("after", True)] and module.told == 3


class SaveAt(L.Callback):
    """Saves a checkpoint between two steps."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("name", [*OURS, "uncertainty", "gradnorm"])
def test_a_resumed_run_equals_the_uninterrupted_one(name, tmp_path):
    def run(*others, resume=None):
        return state(
            fit(net(), characters(0), {**OURS, **STATEFUL}[name](), *BESIDE["all"](), *others, steps=6, parts=2, resume=resume)
        )

    whole = run(SaveAt(tmp_path / "4.ckpt", 4))
    resumed = run(resume=tmp_path / "4.ckpt")
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.slow  # the compiler takes seconds to import
@pytest.mark.parametrize("name", OURS)
def test_a_compiled_model_is_refused_where_there_are_several_tasks(name):
    """It gives zeros for what a task does not reach."""
    for model, compile in ((net(), True), (torch.compile(net()), False)):
        module = RecipeModule(model, nn.functional.cross_entropy, torch.optim.SGD, compile=compile)
        with pytest.raises(RecipeError, match=f"multitask/{name} cannot be combined with a compiled model"):
            module.build([OURS[name]()], SETTING, devices=1)
    module = RecipeModule(net(5), nn.functional.cross_entropy, torch.optim.SGD, compile=True)
    module.build([OURS[name]()], Setting((1, 28, 28), TASKS[:1]), devices=1)


class Random(MultiTask):
    """Draws where it acts, without a thought of ranks."""

    stage, group, option = Stage.HEADS, "multitask", "random"

    def aggregate(self, gradients, module):
        return torch.rand(len(gradients), generator=module.generator(self.option)) @ gradients


def train_at_random(parts):
    """Weights after three steps, on this process."""
    return state(fit(net(), characters(0), Random(), parts=parts))


def test_what_is_drawn_there_is_the_same_on_all_ranks():
    first, second = on_ranks(2, train_at_random, 2)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert_close(first, train_at_random(1))


def test_the_objective_is_the_sum_of_losses_and_penalties():
    class Look(Plugin):
        stage, group, option = Stage.DIAGNOSTICS, "test", "look"
        seen = ()

        def after_step(self, module, optimizer):
            self.seen = (*self.seen, float(module.last_objective))

    looks = [Look(), Look()]
    for kind, look in zip((Summed, EqualWeights), looks, strict=True):
        fit(net(), characters(0), kind(), L2Penalty(0.1), look, parts=2)
    assert looks[0].seen == pytest.approx(looks[1].seen, rel=1e-5)
