import pytest
import torch
from torch import nn

from plugins.base import (
    Batch,
    OptimizerWrapper,
    Plugin,
    RecipeError,
    Refusal,
    Selection,
    Setting,
    Stage,
    Task,
    check_selection,
    class_probabilities,
    derive_seed,
    does_something,
    expect_choice,
    expect_count,
    expect_nonnegative,
    expect_positive,
    expect_probability,
    implementers,
    larger_is_better,
    order,
)
from plugins.init.framework import FrameworkInit
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.l2 import L2Penalty

SETTING = Setting((1, 8, 8), (Task("", "classification", 10),))


class First(Plugin):
    stage = Stage.GEOMETRY

    def transform_batch(self, batch, module):
        return batch


class Second(Plugin):
    stage = Stage.MIXING
    refuses = {"regularizer/dropout": "both draw from one hat; leave one out"}


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (expect_probability, [0, 1, 0.5], [-0.1, 1.1, "0.5", None, float("nan"), True]),
        (expect_nonnegative, [0, 3.5], [-1, float("inf"), float("nan"), "1", True]),
        (expect_positive, [1e-9, 2], [0, -1, float("inf"), None, False]),
        (expect_count, [1, 7], [0, -3, 1.0, "2", True, None]),
    ],
)
def test_checks_of_numbers(check, good, bad):
    for value in good:
        check("p", value)
    for value in bad:
        with pytest.raises(RecipeError, match=r"^p must be .*, got "):
            check("p", value)


def test_check_of_choices():
    expect_choice("mode", "a", ["a", "b"])
    with pytest.raises(RecipeError, match="mode must be one of a, b, got 'c'"):
        expect_choice("mode", "c", ["a", "b"])


@pytest.mark.parametrize(
    ("metric", "larger"),
    [("val/acc", True), ("val/acc_pgd", True), ("val/digit/acc", True), ("val/loss", False), ("val/account/loss", False)],
)
def test_accuracies_are_better_when_larger(metric, larger):
    assert larger_is_better(metric) is larger


def test_seeds_of_owners_differ_and_stay():
    seeds = {derive_seed(seed, owner, step) for seed in range(5) for owner in ("mixup", "crop") for step in range(50)}
    assert len(seeds) == 500
    assert derive_seed(0, "mixup", 3) == derive_seed(0, "mixup", 3)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_order_is_by_stage_whatever_is_written_first():
    plugins = [L2Penalty(), Second(), Dropout(), First()]
    expected = [plugin.state_key for plugin in order(plugins)]
    assert [plugin.state_key for plugin in order(plugins[::-1])] == expected
    assert [plugin.stage for plugin in order(plugins)] == sorted(plugin.stage for plugin in plugins)


def test_only_those_who_define_a_method_are_asked():
    assert implementers([First(), Second(), L2Penalty()], "transform_batch")[0].__class__ is First
    assert [type(plugin) for plugin in implementers([First(), L2Penalty()], "penalty")] == [L2Penalty]
    assert not does_something(FrameworkInit()) and does_something(L2Penalty())


def test_names_come_from_the_file():
    assert (Dropout().group, Dropout().option, Dropout().state_key) == ("regularizer", "dropout", "regularizer/dropout")


@pytest.mark.parametrize(
    ("module", "option", "group"),
    [("__main__", "top_ten", ""), ("own", "top_ten", ""), ("package.regularizer.file", "file", "regularizer")],
)
def test_a_class_has_a_name_wherever_it_is_written(module, option, group):
    plugin = type("TopTen", (Plugin,), {"__module__": module, "stage": Stage.LAYERS})()
    assert (plugin.option, plugin.group) == (option, group)
    assert plugin.state_key == (f"{group}/{option}" if group else option)


def test_refusals_name_both_and_the_fix():
    with pytest.raises(Refusal, match="cannot be combined with regularizer/dropout: .* leave one out"):
        check_selection(Selection([Second(), Dropout()], SETTING))
    with pytest.raises(Refusal, match="selected twice"):
        check_selection(Selection([Dropout(), Dropout()], SETTING))
    check_selection(Selection([Second(), L2Penalty()], SETTING))


def test_a_wrapper_shares_all_with_its_optimizer():
    model = nn.Linear(3, 2)
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapper = OptimizerWrapper(inner)
    calls = []

    def closure():
        calls.append(1)
        wrapper.zero_grad()
        loss = model(torch.ones(4, 3)).square().mean()
        loss.backward()
        return loss

    before = model.weight.detach().clone()
    assert wrapper.step(closure) is not None and len(calls) == 1
    assert not torch.equal(before, model.weight)
    assert wrapper.param_groups is inner.param_groups and wrapper.state is inner.state
    scheduler = torch.optim.lr_scheduler.StepLR(wrapper, 1, 0.5)
    wrapper.step()
    scheduler.step()
    assert inner.param_groups[0]["lr"] == 0.05
    other = OptimizerWrapper(torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=1.0, momentum=0.9))
    other.load_state_dict(wrapper.state_dict())
    assert other.param_groups[0]["lr"] == 0.05


def test_probabilities_of_labels():
    labels = torch.randint(4, (9,))
    assert torch.equal(class_probabilities(labels, 4), nn.functional.one_hot(labels, 4).float())
    soft = torch.rand(9, 4).softmax(1)
    assert class_probabilities(soft, 4) is soft


@pytest.mark.parametrize(("of_model", "kind"), [("bfloat16", "float32"), ("float16", "float32"), ("float64", "float64")])
def test_probabilities_are_not_rounded_to_half_precision(of_model, kind):
    torch.set_default_dtype(getattr(torch, of_model))
    try:
        found = class_probabilities(torch.randint(4, (9,)), 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == getattr(torch, kind)


def test_a_batch_counts_its_samples():
    assert len(Batch(torch.zeros(5, 2), {}, {})) == 5
