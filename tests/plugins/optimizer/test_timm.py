import sys

import pytest
import torch

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.optimizer.timm import TimmOptimizer
from tests.harness import build, config_of
from tests.plugins.optimizer.small_layer import layer, train

SETTING = Setting((6,), (Task("", "classification", 3),))


@pytest.mark.parametrize(
    ("name", "settings"), [("nadamw", {}), ("sgdw", {"momentum": 0.5}), ("adopt", {"betas": [0.8, 0.9]}), ("NAdam", {})]
)
def test_is_timms(name, settings):
    optim = pytest.importorskip("timm.optim")
    ours, theirs = layer(), layer()
    mine = TimmOptimizer(ours.parameters(), name, lr=0.01, weight_decay=0.1, settings=settings)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    reference = optim.create_optimizer_v2(list(theirs.parameters()), name, lr=0.01, weight_decay=0.1, **given)
    assert type(mine.optimizer) is type(reference)
    assert torch.equal(train(mine, ours), train(reference, theirs))


def test_its_own_rate_where_none_is_given():
    optim = pytest.importorskip("timm.optim")
    net = layer()
    mine = TimmOptimizer(net.parameters(), "adan")
    assert mine.param_groups[0]["lr"] == optim.create_optimizer_v2(list(net.parameters()), "adan").param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": "nadamv"}, "name must be an optimizer of timm; did you mean nadam.*, got 'nadamv'"),
        ({"name": "qqqq"}, "name must be an optimizer of timm, such as .*, got 'qqqq'"),
        ({"name": None}, "name must be an optimizer of timm"),
        ({"name": "adafactor"}, "name=adafactor of timm cannot be used: it has no learning rate .*optimizer.lr"),
        ({"name": "adahessian"}, "name=adahessian of timm cannot be used: it needs second derivatives"),
        ({"name": "fusedadam"}, "name=fusedadam of timm cannot be used: .*(CUDA|apex)"),
        ({"lr": -1.0}, "lr must be a number ≥ 0"),
        ({"weight_decay": -1.0}, "weight_decay must be a number ≥ 0"),
        ({"settings": [1]}, "settings must be values by name"),
        ({"settings": {"lr": 0.1}}, "settings has lr, which stands beside it: type optimizer.lr=0.1"),
        ({"settings": {"momentun": 0.1}}, "name=nadamw of timm cannot be used: TypeError: .*momentun"),
    ],
)
def test_what_cannot_be_right_is_refused(wrong, told):
    pytest.importorskip("timm")
    with pytest.raises(RecipeError, match=told) as refused:
        TimmOptimizer(layer().parameters(), **wrong)
    assert "\n" not in str(refused.value)


@pytest.mark.slow  # some compile what they do
def test_every_name_trains_or_is_refused_in_a_line():
    names = pytest.importorskip("timm.optim").list_optimizers()
    refused = {}
    for name in names:
        net = layer()
        for rate in (None, 0.01):  # some have none of their own
            try:
                optimizer = TimmOptimizer(net.parameters(), name, rate)
            except RecipeError as error:
                refused[name] = str(error)
            else:
                refused.pop(name, None)
                assert train(optimizer, net, 2).isfinite().all(), name
                break
    apart = {name: told for name, told in refused.items() if not name.startswith(("bnb", "fused"))}
    assert list(apart) == ["adahessian"], apart
    assert all("\n" not in told for told in refused.values())


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim", None)  # as if it was not installed
    with pytest.raises(
        RecipeError, match=r'optimizer=timm needs a package of its own: pip install "lightning-recipes\[timm\]"'
    ):
        TimmOptimizer(layer().parameters())


def test_rates_by_group_are_refused_where_there_is_one_for_all():
    pytest.importorskip("timm")
    net = layer()
    optimizer = TimmOptimizer([{"params": [net.weight]}, {"params": [net.bias], "lr": 0.1}], "nadamw")
    optimizer.check(Selection([], SETTING, devices=2))
    optimizer.trial = type(optimizer.trial)(draws=False, rates_apart=False)
    with pytest.raises(
        Refusal, match="optimizer/timm: nadamw has one learning rate for all parameters: leave optimizer.layer_decay"
    ):
        optimizer.check(Selection([], SETTING))


def test_shards_are_refused():
    pytest.importorskip("timm")
    with pytest.raises(Refusal, match="optimizer/timm needs whole weights or gradients.*type trainer=ddp"):
        build(config_of(["optimizer/timm"], "trainer=fsdp"))
