"""Robust accuracy: on a trained model, and by several starts."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from plugins.adversarial._ascent import fgsm, input_gradient, pgd, steepest
from plugins.adversarial._crafting import attacked_loss
from plugins.adversarial.fgsm import FGSM
from plugins.adversarial.pgd import PGD
from plugins.adversarial.trades import TRADES
from plugins.base import Batch, RecipeError, Setting, Task
from plugins.loss.by_task import LossByTask
from plugins.loss.cross_entropy import CrossEntropy
from recipes.engine.module import RecipeModule
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
        found[restarts] = plugin.measure(lab.module(plugin, net=net), batch, {}, "val")["acc_pgd"][0]
    assert (found[2] <= found[1]).all() and (found[8] <= found[2]).all() and found[8].sum() < found[1].sum()
    half = lab.batch(20)
    half.positions = range(20)
    plugin = PGD(eps=0.15, eval_steps=1, eval_restarts=8)
    assert torch.equal(plugin.measure(lab.module(plugin, net=net), half, {}, "val")["acc_pgd"][0], found[8][:20])


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
    assert torch.equal(found["acc_pgd"][0], right) and torch.equal(found["acc_fgsm"][0], right) and found["acc_pgd"][1].all()


class Two(nn.Module):
    """Two linear heads on the same inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 4)

    def forward(self, x):
        return {"a": self.a(x), "b": self.b(x)}


def partly_labelled(second, plugin=None):
    """A model of two tasks, its module, 40 inputs and its own predictions for them, of which it has some."""
    torch.manual_seed(0)
    net, plugin, loss = Two(), plugin or PGD(eps=1e-6), LossByTask()
    loss.cross_entropy = CrossEntropy(ignore_index=-100)
    module = RecipeModule(net, loss, partial(torch.optim.SGD, lr=0.1))
    module.setting = Setting((6,), (Task("a", "classification", 3), Task("b", second, 4)))
    module.build([plugin], devices=1)
    x = torch.randn(40, 6)
    targets = {task: output.detach() for task, output in net(x).items()}
    targets = {task: output if task == "b" and second == "regression" else output.argmax(1) for task, output in targets.items()}
    return plugin, module, x, targets


def test_a_label_that_nobody_knows_is_not_raised_in_training():
    """A step goes up the gradient of what is minimized, samples with their weights, as torch has it; so a sample without one up that of the rest."""
    plugin, module, x, targets = partly_labelled("classification", FGSM(eps=0.1))
    targets["b"][:30] = -100
    batch = module.as_batch((x, targets))
    x, net, weight = x.requires_grad_(), module.model, torch.rand(40)

    def signs(counted):
        first = (counted * functional.cross_entropy(net(x)["a"], targets["a"], reduction="none")).sum() / counted.sum()
        second = functional.cross_entropy(net(x)["b"], targets["b"], ignore_index=-100, reduction="none")
        total = first + (counted * second).sum() / counted[30:].sum()
        alone, both = (torch.autograd.grad(loss, x, retain_graph=True)[0].sign() for loss in (first, total))
        assert torch.equal(alone[:30], both[:30]) and not torch.equal(alone[30:], both[30:])
        return both

    assert torch.equal((plugin.transform_batch(batch, module).x - batch.x).sign(), signs(torch.ones(40)))
    batch.weight = {"a": weight, "b": batch.weight["b"] * weight}
    assert torch.equal((plugin.transform_batch(batch, module).x - batch.x).sign(), signs(weight))
    plugin.clean = 0.25
    moved = (plugin.transform_batch(batch, module).x - batch.x).detach()[:30]
    attacked = moved.any(1)
    assert 20 <= attacked.sum() <= 30 and torch.equal(moved.sign()[attacked], signs(weight)[:30][attacked])


def test_trades_goes_apart_where_the_divergence_is_minimized():
    """KL of a and of b, each a mean over the samples whose label is known."""
    plugin, module, x, targets = partly_labelled("classification", TRADES(eps=0.1, alpha=0.1, steps=1))
    targets["b"][:30] = -100
    found = plugin.transform_batch(module.as_batch((x, targets)), module).extra[plugin.state_key] - x
    start = 0.001 * torch.empty_like(x).normal_(generator=module.generator(plugin.option))
    moved, known = (x + start).requires_grad_(), torch.arange(40) >= 30
    p, q = ({task: z.log_softmax(1) for task, z in module.model(inputs).items()} for inputs in (x, moved))
    first, second = ((p[task].exp() * (p[task] - q[task])).sum(1) for task in ("a", "b"))
    (gradient,) = torch.autograd.grad(first.mean() + (second * known).sum() / 10, moved)
    alike = (found.sign() == gradient.sign()).float().mean()
    assert alike > 0.97  # next to x the divergence is nearly flat, and its slope rounded
    targets["b"][:] = -100
    assert plugin.transform_batch(module.as_batch((x, targets)), module).extra[plugin.state_key].isfinite().all()


@pytest.mark.parametrize("second", ["classification", "regression"])
def test_labels_that_are_ignored_break_no_sample(lab, second):
    """Tasks with a known label count; a sample without any is in neither part of the mean."""
    _, module, x, targets = partly_labelled(second)
    targets["a"][:8] = -100
    targets["a"][8:16] = (targets["a"][8:16] + 1) % 3  # wrong
    counted, right = 32, 24
    if second == "classification":
        targets["b"][4:24] = -100
        counted, right = 36, 28  # the first four by the second task alone
    loader = DataLoader([(x[at], {task: target[at] for task, target in targets.items()}) for at in range(40)], batch_size=7)
    lab.trainer(*module.plugins).validate(module, loader, verbose=False)
    assert module.metrics["val/acc_pgd"] == pytest.approx(right / counted)


def test_the_guard_leaves_labels_that_are_ignored_out(monkeypatch):
    plugin, module, x, targets = partly_labelled("regression")
    targets["a"][:30] = -100
    targets["a"][30:32] = (targets["a"][30:32] + 1) % 3
    plugin.remember(Batch(x, targets, targets))
    trainer = SimpleNamespace(sanity_checking=False, world_size=1, global_rank=0)
    plugin.on_validation_start(trainer, module)
    assert float(module.recorder._records["pgd/train_acc_pgd"]) == pytest.approx(0.8)
    plugin._best = 0.0  # no warning
    other = torch.tensor([1.0, 30.0])  # of another process, which has more labels
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(other))
    plugin.on_validation_start(SimpleNamespace(**{**vars(trainer), "world_size": 2}), module)
    assert float(module.recorder._records["pgd/train_acc_pgd"]) == pytest.approx(9 / 40)
    targets["a"][:] = -100
    plugin.remember(Batch(x, targets, targets))
    module.recorder._records.clear()
    plugin.on_validation_start(trainer, module)
    assert not module.recorder._records


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_float16_finds_the_slopes_of_confident_predictions(norm):
    """Those of a mean over many samples are below what it can tell from 0."""
    net = nn.Linear(6, 3)
    module = RecipeModule(net, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build([PGD(eps=0.1)], Setting((6,), (Task("", "classification", 3),)), devices=1)
    nn.init.orthogonal_(net.weight)
    y = torch.randint(3, (1000,))
    x = (12 * net.weight[y] - net.bias.unsqueeze(0) @ net.weight).detach()  # logits of 12 and 0: what is not y has e⁻¹²
    with torch.autocast("cpu", torch.float16):
        found = steepest(input_gradient(attacked_loss(module, {"": y}), x), norm)
    wanted = steepest(input_gradient(attacked_loss(module, {"": y}), x), norm)
    assert bool((found != 0).any(1).all())
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.0 if norm == "linf" else 0.02)
