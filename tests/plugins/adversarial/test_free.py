import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.adversarial.free import FreeAdversarial
from plugins.base import RecipeError, Refusal, Setting, Task
from plugins.multitask.pcgrad import PCGrad
from plugins.regularizer.jacobian import JacobianPenalty
from plugins.wrapper.sam import SAM
from recipes.data.loaders import StepLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule
from tests.harness import build, config_of


def plain(lab):
    """A net without statistics and masks."""
    net = lab.copy()
    net[1], net[4] = nn.Identity(), nn.Identity()
    return net


def train(lab, plugin, steps, parts=1, others=(), **arguments):
    net = plain(lab)
    module = RecipeModule(net, functional.cross_entropy, partial(torch.optim.SGD, lr=0.3), parts=parts)
    loader = StepLoader(Split(lab.x, {"": lab.y}), 16 // parts, 0, parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lab.trainer(plugin, *others, max_steps=steps, **arguments).fit(module, loader)
    return module, loader


def by_hand(lab, order, steps, eps, replays, norm):
    """Algorithm 1 of the paper, inputs clamped to [0, 1]; δ goes on from batch to batch. The net, δ."""
    net, delta = plain(lab), torch.zeros(16, 1, 8, 8)
    for step in range(steps):
        index = order[step // replays]
        x = (lab.x[index] + delta).clamp(0, 1).requires_grad_()
        functional.cross_entropy(net(x), lab.y[index]).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.3 * parameter.grad
                parameter.grad = None
            if norm == "linf":
                delta = (delta + eps * x.grad.sign()).clamp(-eps, eps)
            else:
                delta = delta + eps * x.grad / x.grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
                delta = delta * (eps / delta.flatten(1).norm(dim=1)).clamp_max(1).view(-1, 1, 1, 1)
    return net, delta


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("parts", [1, 2])
def test_is_the_algorithm(lab, norm, parts):
    eps = {"linf": 0.1, "l2": 0.8}[norm]
    plugin = FreeAdversarial(eps=eps, replays=3, norm=norm, eval_samples=0)
    module, loader = train(lab, plugin, 7, parts)
    assert len(loader) == 3 and module.steps_done == 7
    net, delta = by_hand(lab, loader.order(0), 7, eps, 3, norm)
    for found, expected in zip(module.model.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    found = torch.cat([plugin._deltas[part] for part in range(parts)])
    assert ((found - delta).abs() < 1e-3).float().mean() > 0.99 and found.abs().max() <= eps


def test_inputs_are_in_the_ball_and_the_range_and_move(lab):
    plugin = FreeAdversarial(eps=0.1, replays=2, eval_samples=0)
    seen, inner = [], plugin.examples

    def watch(batch, *rest):
        seen.append((batch.x, inner(batch, *rest)))
        return seen[-1][1]

    plugin.examples = watch
    train(lab, plugin, 6)
    for step, (x, worst) in enumerate(seen):
        assert torch.equal(x, seen[step - step % 2][0])
        assert (worst.double() - x.double()).abs().max() <= 0.1 and worst.min() >= 0 and worst.max() <= 1
        assert torch.equal(worst, x) == (step == 0)


def test_a_resumed_run_goes_on_in_the_middle_of_a_batch(lab, tmp_path):
    whole = FreeAdversarial(eps=0.1, replays=4, eval_samples=0)
    expected, _ = train(lab, whole, 6)
    first, second = (FreeAdversarial(eps=0.1, replays=4, eval_samples=0) for _ in range(2))
    module, _ = train(lab, first, 3)
    module.trainer.save_checkpoint(tmp_path / "at.ckpt")
    net = plain(lab)
    resumed = RecipeModule(net, functional.cross_entropy, partial(torch.optim.SGD, lr=0.3))
    loader = StepLoader(Split(lab.x, {"": lab.y}), 16, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lab.trainer(second, max_steps=6).fit(resumed, loader, ckpt_path=str(tmp_path / "at.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(expected.state_dict().values(), resumed.state_dict().values(), strict=True))
    assert torch.equal(whole._deltas[0], second._deltas[0])


def test_the_same_samples_stay_clean_while_a_batch_is_repeated(lab):
    plugin = FreeAdversarial(eps=0.1, replays=3, clean=0.25, eval_samples=0)
    kept, inner = [], plugin.examples

    def watch(batch, *rest):
        worst = inner(batch, *rest)
        kept.append((worst == batch.x).flatten(1).all(1))
        return worst

    plugin.examples = watch
    train(lab, plugin, 6)
    assert kept[1].sum() == kept[4].sum() == 4
    assert torch.equal(kept[1], kept[2]) and torch.equal(kept[4], kept[5]) and not torch.equal(kept[2], kept[5])


def test_of_two_passes_the_first_one_counts(lab):
    """SAM's second pass is taken elsewhere: after one step δ is that of a run without it."""
    found = []
    for others in ((), (SAM(0.5),)):
        plugin = FreeAdversarial(eps=0.1, replays=2, eval_samples=0, clean=0.5)
        train(lab, plugin, 1, others=others)
        found.append(plugin._deltas[0])
    assert torch.equal(*found) and found[0].abs().max() > 0.09


def test_no_ball_is_a_plain_run(lab):
    off = FreeAdversarial(eps=0.0)
    assert off.repeats == 1 and FreeAdversarial(eps=0.1).repeats == 8
    trained, _ = lab.fit(off)
    untouched, _ = lab.fit()
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), untouched.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": "predicted"}, "at the true labels: use adversarial.label=true"),
        ({"eval_mode": True}, "in training mode: use adversarial.eval_mode=false"),
    ],
)
def test_refuses_what_needs_a_pass_of_its_own(lab, given, message):
    with pytest.raises(Refusal, match=message):
        lab.module(FreeAdversarial(**given))


def test_refuses_gradients_of_tasks_that_are_taken_apart():
    module = RecipeModule(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), functional.cross_entropy, torch.optim.SGD)
    setting = Setting((6,), (Task("a", "classification", 3), Task("b", "classification", 2)))
    with pytest.raises(Refusal, match=r"multitask/pcgrad takes those of the tasks apart: use \+multitask=equal"):
        module.build([FreeAdversarial(), PCGrad()], setting, devices=1)


def test_inputs_move_beside_a_penalty_that_asks_for_gradients_of_them_too(lab):
    plugin = FreeAdversarial(eps=0.1, replays=2, eval_samples=0)
    train(lab, plugin, 2, others=(JacobianPenalty(0.01),))
    alone = FreeAdversarial(eps=0.1, replays=2, eval_samples=0)
    train(lab, alone, 1)
    assert (plugin._deltas[0].abs().amax((1, 2, 3)) > 0.09).all() and (alone._deltas[0].abs().amax((1, 2, 3)) > 0.09).all()


def test_a_share_of_the_training_is_refused():
    """Each batch is trained on several times in all of it."""
    with pytest.raises(
        Refusal, match=r"adversarial/free trains several steps in a row on each batch.*leave adversarial\.when out"
    ):
        build(config_of(["adversarial/free"], "+adversarial.when=[0.5,1.0]"))


def test_a_loader_that_gives_each_batch_once_is_refused(lab):
    told = "adversarial/free trains several steps in a row on each batch, and a DataLoader gives it once: train with a StepLoader, or leave"
    with pytest.raises(RecipeError, match=told):
        lab.fit(FreeAdversarial(eps=0.1))


def test_a_second_training_begins_anew(lab):
    plugin = FreeAdversarial(eps=0.1)
    train(lab, plugin, 2)
    assert plugin._deltas
    plugin.on_train_start(None, SimpleNamespace(steps_done=3))
    assert plugin._deltas
    plugin.on_train_start(None, SimpleNamespace(steps_done=0))
    assert not plugin._deltas
