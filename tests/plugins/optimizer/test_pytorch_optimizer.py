import sys
from dataclasses import replace

import pytest
import torch

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.optimizer.pytorch_optimizer import PytorchOptimizer
from tests.harness import build, config_of
from tests.plugins.optimizer.small_layer import layer, train

SETTING = Setting((6,), (Task("", "classification", 3),))
REFUSED = {  # words of the reason, for the names of the library that cannot be used
    "made of a model": {"adalomo", "adammini", "lomo", "magma"},
    "evaluates other weights": {"schedulefreeadamw", "schedulefreeradam", "schedulefreesgd", "splus"},
    "second derivatives": {"adahessian", "sophiah"},
    "several passes": {"bsam"},
    "take optimizer=muon": {"adamuon", "distributedmuon", "muon", "muonclip", "normuon"},
}


@pytest.mark.parametrize(
    ("name", "settings"), [("AdaBelief", {"rectify": True}), ("ademamix", {}), ("prodigy", {"betas": [0.8, 0.9]}), ("came", {})]
)
def test_is_the_librarys(name, settings):
    library = pytest.importorskip("pytorch_optimizer")
    ours, theirs = layer(), layer()
    mine = PytorchOptimizer(ours.parameters(), name, lr=0.01, weight_decay=0.1, settings=settings)
    reference = library.load_optimizer(name)(theirs.parameters(), lr=0.01, weight_decay=0.1, **settings)
    assert type(mine.optimizer) is type(reference)
    assert torch.equal(train(mine, ours), train(reference, theirs))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": "adabelif"}, "name must be an optimizer of pytorch_optimizer; did you mean adabelief.*, got 'adabelif'"),
        ({"name": "qqqq"}, "name must be an optimizer of pytorch_optimizer, such as .*, got 'qqqq'"),
        ({"name": "lbfgs"}, "name=lbfgs of pytorch_optimizer cannot be used: .*parameter groups"),
        ({"name": "alig"}, "name=alig of pytorch_optimizer cannot be used: it has no learning rate"),
        ({"lr": -1.0}, "lr must be a number ≥ 0"),
        ({"weight_decay": -1.0}, "weight_decay must be a number ≥ 0"),
        ({"settings": {"rectifi": True}}, "it has no rectifi; it has betas, .*rectify"),
    ],
)
def test_what_cannot_be_right_is_refused(wrong, told):
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(RecipeError, match=told) as refused:
        PytorchOptimizer(layer().parameters(), **wrong)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("told", REFUSED)
def test_what_no_run_can_give_is_refused_with_the_reason(told):
    known = set(pytest.importorskip("pytorch_optimizer").get_supported_optimizers())
    for name in REFUSED[told] & known:
        with pytest.raises(RecipeError, match=f"name={name} of pytorch_optimizer cannot be used: .*{told}"):
            PytorchOptimizer(layer().parameters(), name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the library's
def test_every_name_trains_or_is_refused_in_a_line():
    names = pytest.importorskip("pytorch_optimizer").get_supported_optimizers()
    refused = {}
    for name in names:
        net = layer()
        try:
            optimizer = PytorchOptimizer(net.parameters(), name)
        except RecipeError as error:
            refused[name] = str(error)
        else:
            assert train(optimizer, net, 2).isfinite().all(), name
    assert len(refused) < len(names) / 4, refused
    assert all("\n" not in told for told in refused.values())


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)  # as if it was not installed
    told = r'optimizer=pytorch_optimizer needs a package of its own: pip install "lightning-recipes\[pytorch_optimizer\]"'
    with pytest.raises(RecipeError, match=told):
        PytorchOptimizer(layer().parameters())


def test_rates_by_group_are_refused_where_there_is_one_for_all():
    pytest.importorskip("pytorch_optimizer")
    net = layer()
    groups = [{"params": [net.weight]}, {"params": [net.bias]}]
    optimizer = PytorchOptimizer(groups, "dadaptadam")
    optimizer.check(Selection([], SETTING))
    optimizer.param_groups[1]["lr"] *= 0.5
    with pytest.raises(Refusal, match="pytorch_optimizer: dadaptadam has one learning rate for all parameters"):
        optimizer.check(Selection([], SETTING))


def test_one_that_draws_is_refused_on_several_devices():
    pytest.importorskip("pytorch_optimizer")
    optimizer = PytorchOptimizer(layer().parameters())
    optimizer.check(Selection([], SETTING, devices=2))
    optimizer.trial = replace(optimizer.trial, draws=True)
    optimizer.check(Selection([], SETTING))
    with pytest.raises(Refusal, match="pytorch_optimizer: adabelief draws at random, on each process something else"):
        optimizer.check(Selection([], SETTING, devices=2))


def test_shards_are_refused():
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(Refusal, match="optimizer/pytorch_optimizer needs whole weights or gradients.*type trainer=ddp"):
        build(config_of(["optimizer/pytorch_optimizer"], "trainer=fsdp"))
