import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from plugins.averaging.swa import SWA
from plugins.base import RecipeError, Refusal
from plugins.finetuning.gradual import GradualUnfreezing
from plugins.norm_statistics import measured_norms
from plugins.optimizer.adan import Adan
from plugins.optimizer.lamb import Lamb
from plugins.optimizer.soap import SOAP
from plugins.wrapper.sam import SAM
from recipes.check.harness import build, fit, merged_config
from recipes.check.processes import STEPS, equals_copies, equals_two_parts
from recipes.check.trained import parameters, same_bits, weights
from tests.command import SMALL, mistake
from tests.ranks import on_ranks, train_all

FIRST, SECOND = ("0", "1"), ("3", "4")
EVERY = 0.012  # of an epoch of about 80 steps: another block with each step


@pytest.mark.parametrize(("order", "next"), [("head_first", SECOND), ("input_first", FIRST)])
def test_equals_a_loop_that_thaws_block_after_block(net, train, by_hand, same, order, next):
    other = FIRST if next is SECOND else SECOND
    resting = [FIRST + SECOND] * 2 + [other] * 2 + [()] * 3
    expected = by_hand(net, resting)
    same(train(net, GradualUnfreezing(0.5, order), steps=7), expected)


def test_adam_counts_the_steps_of_a_block_from_its_thaw(net, train, by_hand, same):
    def adam(parameters):
        return torch.optim.AdamW(parameters, 0.01)

    expected = by_hand(net, [FIRST + SECOND] * 2 + [FIRST] * 2 + [()], adam)
    same(train(net, GradualUnfreezing(0.5), steps=5, make=adam), expected)


def test_a_sum_of_epochs_is_not_late_by_rounding(net, train, by_hand, same):
    expected = by_hand(net, [FIRST + SECOND] * 3 + [FIRST] * 3 + [()])
    same(train(net, GradualUnfreezing(0.75), steps=7), expected)


@pytest.mark.slow
def test_a_compiled_model_thaws_too(net, train, by_hand, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    expected = by_hand(net, [FIRST + SECOND] * 2 + [FIRST] * 2 + [()] * 2)
    found = train(net, GradualUnfreezing(0.5), steps=6, compile=True)
    for one, other in zip(found, expected, strict=True):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value)


def test_a_wrapper_of_two_passes_sees_what_is_trained(net, train):
    before = copy.deepcopy(net)
    first, *_, last = train(net, GradualUnfreezing(0.5), SAM(), steps=5)
    assert torch.equal(first[0].weight, before[0].weight) and not torch.equal(last[0].weight, before[0].weight)


def test_swa_measures_the_norm_layers_that_are_trained(net, train):
    statistics = net[1].running_mean.clone()
    model = copy.deepcopy(net)
    train(model, GradualUnfreezing(2.0), SWA(0.25), steps=4)
    assert all(torch.equal(norm.running_mean, statistics) for norm in measured_norms(model))
    model = copy.deepcopy(net)
    train(model, GradualUnfreezing(0.25), SWA(0.25), steps=4)
    assert not any(torch.equal(norm.running_mean, statistics) for norm in measured_norms(model))


def config_of(**trainer):
    settings = {f"trainer.{name}": value for name, value in trainer.items()}
    names = ("finetuning/gradual", "normalization/batch")
    return merged_config(names, {"finetuning.every": EVERY, "trainer.val_every_n_steps": 2, **settings})


@pytest.mark.parametrize("at", [1, 2, 3])
def test_goes_on_bit_for_bit_in_the_middle_of_thawing(tmp_path, at):
    whole = fit(config_of(), tmp_path / "whole", 4, copy_at=at)
    found = fit(config_of(), tmp_path / "resumed", 4, resume=tmp_path / "whole" / "copy.ckpt")
    assert not same_bits(weights(whole), weights(found))
    start, resting = parameters(build(config_of())), {"model.0.weight", "model.0.bias"}
    moved = {name for name, value in parameters(whole).items() if not torch.equal(value, start[name])}
    assert moved.isdisjoint(resting) and {"model.11.weight", "model.9.weight", "model.5.weight"} <= moved  # in mid-thaw


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, monkeypatch):
    """Copies of the weights, and parts of them."""
    name, found = "finetuning/gradual", {}
    for strategy in ("ddp", "fsdp"):
        config = merged_config(
            (name,), {"finetuning.every": EVERY, "trainer.val_every_n_steps": 2, "trainer.strategy": strategy}
        )
        on_ranks(2, train_all, tmp_path / f"{strategy}.pt", {name: config})
        found[strategy] = torch.load(tmp_path / f"{strategy}.pt", weights_only=True)[name]
        assert "parameters" in found[strategy], found[strategy]
    kept = merged_config

    def thawing(names, settings=None):
        return kept(names, {**(settings or {}), "finetuning.every": EVERY})

    monkeypatch.setattr("recipes.check.processes.merged_config", thawing)
    equals_two_parts((name,), tmp_path, found["ddp"])
    equals_copies((name,), found["fsdp"], found["ddp"])
    start = parameters(build(config_of()))
    moved = [key for key, value in found["ddp"]["parameters"].items() if key in start and not torch.equal(value, start[key])]
    assert STEPS == 4 and "model.5.weight" in moved and "model.0.weight" not in moved


def test_refuses_an_optimizer_that_counts_for_all_together():
    with pytest.raises(Refusal, match="cannot be combined with optimizer/schedule_free: .* take optimizer=adamw"):
        build(merged_config(("finetuning/gradual", "optimizer/schedule_free")))


def test_tells_when_each_block_thaws(net):
    plugin = GradualUnfreezing(1.5)
    plugin.transform_model(net)
    assert plugin.remarks == ["trains 6 from epoch 0 on, 3 and 4 from epoch 1.5 on, 0 and 1 from epoch 3 on"]


def test_the_epochs_of_phases_before_are_their_own():
    """A phase on more samples has longer epochs: what was trained stays so."""
    trainer, phase = (
        SimpleNamespace(num_training_batches=20),
        {"fresh": False, "steps": 30, "ended": [{"epochs": 2.5}, {"epochs": 0.5}]},
    )
    now = lambda phase: GradualUnfreezing().now(trainer, SimpleNamespace(steps_done=5, phase=phase))  # noqa: E731
    assert now(phase) == 3.25 and now({**phase, "fresh": True}) == now({"steps": 0}) == 0.25


def test_refuses_values_out_of_range():
    with pytest.raises(RecipeError, match="^every must be a number > 0"):
        GradualUnfreezing(0.0)
    with pytest.raises(RecipeError, match="^order must be one of head_first, input_first"):
        GradualUnfreezing(order="head_last")


def test_a_mistake_is_one_line(tmp_path):
    told = mistake("+finetuning=freeze", "finetuning.modules=[layer9]", *SMALL[1:], cwd=tmp_path, forked=True)
    assert "finetuning.modules names layer9" in told and "head is the last" in told


@pytest.mark.parametrize("name", ["adan", "soap"])
def test_refuses_optimizers_whose_late_steps_are_far_too_short(name):
    make = {"adan": Adan, "soap": SOAP}[name]
    pytest.importorskip(make.extra)

    def lengths(steps_before):
        early, late = torch.nn.Parameter(torch.randn(6, 6)), torch.nn.Parameter(torch.randn(6, 6))
        optimizer, found = make([early, late], lr=1e-3), []
        for step in range(steps_before + 2):
            early.grad, before = torch.randn(6, 6), late.detach().clone()
            late.grad = torch.randn(6, 6) if step >= steps_before else None
            optimizer.step()
            found.append((late.detach() - before).norm().item())
        return max(found[-2:])

    assert lengths(50) < lengths(0) / 1.5
    with pytest.raises(Refusal, match=f"cannot be combined with optimizer/{name}: .* far too short ones"):
        build(merged_config(("finetuning/gradual", f"optimizer/{name}")))


@pytest.mark.parametrize("adapt", [True, False])
def test_late_steps_of_lamb_are_too_long_only_where_it_does_not_set_their_length(adapt, tmp_path):
    pytest.importorskip("timm")

    def length(steps_before):
        torch.manual_seed(0)
        early, late = torch.nn.Parameter(torch.randn(6, 6)), torch.nn.Parameter(torch.randn(6, 6))
        optimizer, before = Lamb([early, late], betas=(0.5, 0.99), weight_decay=0.0, always_adapt=adapt), late.detach().clone()
        for step in range(steps_before + 1):
            early.grad = torch.randn(6, 6)
            late.grad = torch.randn(6, 6) if step == steps_before else None
            optimizer.step()
        return (late.detach() - before).norm().item()

    assert (length(300) > 3 * length(0)) != adapt
    names = ("finetuning/gradual", "optimizer/lamb")
    config = merged_config(names, {"optimizer.always_adapt": adapt, "optimizer.no_decay": ["bias"]})
    if adapt:
        fit(config, tmp_path, 1)
    else:
        with pytest.raises(Refusal, match="finetuning/gradual cannot be combined with optimizer.always_adapt=false"):
            fit(config, tmp_path, 1)
