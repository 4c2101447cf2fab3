"""Robust accuracy: on a trained model, and by several starts."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from plugins.adversarial._ascent import fgsm, pgd
from plugins.adversarial.fgsm import FGSM
from plugins.adversarial.pgd import PGD
from plugins.base import Batch, RecipeError
from tests.plugins.adversarial.slope import loss_of


@pytest.fixture(scope="module")
def trained():
    """A small net that knows the digits, in evaluation mode, and some it was not trained on."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x.reshape(-1, 1, 8, 8) / 16).float(), torch.from_numpy(y)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(net, y[:1200])(x[:1200]).backward()
        optimizer.step()
    return net.eval(), x[1200:1400], y[1200:1400]


def accuracy(net, x, y):
    return float((net(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_robust_accuracy_is_that_of_torchattacks(trained, norm):
    torchattacks = pytest.importorskip("torchattacks")
    net, x, y = trained
    eps, kinds = (0.1, torchattacks.PGD) if norm == "linf" else (0.6, torchattacks.PGDL2)
    theirs = kinds(net, eps=eps, alpha=eps / 4, steps=10, random_start=False)(x, y)
    ours = pgd(x, loss_of(net, y), eps, eps / 4, 10, norm, (0.0, 1.0))
    assert accuracy(net, x, y) > 0.8 and accuracy(net, theirs, y) < 0.7
    assert abs(accuracy(net, ours, y) - accuracy(net, theirs, y)) <= 0.01
    if norm == "linf":
        step = torchattacks.FGSM(net, eps=eps)(x, y)
        assert accuracy(net, fgsm(x, loss_of(net, y), eps, "linf", (0.0, 1.0)), y) == accuracy(net, step, y)


def test_each_further_start_takes_some_more_samples_and_gives_none_back(lab):
    """A sample counts that withstands all; the first start is that of an evaluation with a single one."""
    found, net = {}, copy.deepcopy(lab.net)
    lab.y = lab.copy().eval()(lab.x).argmax(1).detach()  # all are right before an attack
    batch = lab.batch()
    batch.positions = range(48)
    for restarts in (1, 2, 8):
        plugin = PGD(eps=0.15, eval_steps=1, eval_restarts=restarts)
        found[restarts] = plugin.measure(lab.module(plugin, net=net), batch, {}, "val")["acc_pgd"]
    assert (found[2] <= found[1]).all() and (found[8] <= found[2]).all() and found[8].sum() < found[1].sum()
    half = lab.batch(20)
    half.positions = range(20)
    plugin = PGD(eps=0.15, eval_steps=1, eval_restarts=8)
    assert torch.equal(plugin.measure(lab.module(plugin, net=net), half, {}, "val")["acc_pgd"], found[8][:20])


def test_steps_and_starts_belong_to_the_ruler():
    assert PGD().ruler("acc_pgd")["eval_steps"] == 10 and "eval_restarts" not in PGD().ruler("acc_pgd")
    assert PGD(eval_steps=40, eval_restarts=3).ruler("acc_pgd") == {
        **PGD().ruler("acc_pgd"),
        "eval_steps": 40,
        "eval_restarts": 3,
    }
    assert PGD(eval_steps=40, eval_restarts=3).ruler("acc_fgsm") == PGD().ruler("acc_fgsm")
    with pytest.raises(RecipeError, match="eval_restarts must be a whole number ≥ 1, got 0"):
        PGD(eval_restarts=0)


def test_an_evaluation_makes_as_many_steps_as_it_is_told(lab):
    plugin, passes = PGD(eps=0.1, eval_steps=6, eval_restarts=2), []
    module = lab.module(plugin)
    module.model.register_forward_hook(lambda *given: passes.append(1))
    batch = lab.batch()
    batch.positions = range(48)
    plugin.measure(module, batch, {}, "val")
    assert len(passes) == 2 * (6 + 1)  # each start ends with a look


def test_plain_accuracy_where_eps_is_zero(lab):
    plugin = FGSM(eps=0.0)
    batch = Batch(lab.x, {"": lab.y}, {"": lab.y}, positions=range(48))
    found = plugin.measure(lab.module(plugin), batch, {}, "test")
    right = (lab.copy().eval()(lab.x).argmax(1) == lab.y).float()
    assert torch.equal(found["acc_pgd"], right) and torch.equal(found["acc_fgsm"], right)
