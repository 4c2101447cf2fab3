import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.adversarial.trades import TRADES, divergence
from plugins.augmentation.mixup import Mixup
from plugins.base import Batch, Refusal, Setting, Task
from recipes.engine.module import RecipeModule

WORST = "adversarial/trades"


def kl(clean, other):
    """KL(p ‖ q) of each sample, from logits, as the paper has it."""
    p, q = clean.softmax(1), other.softmax(1)
    return (p * (p / q).log()).sum(1)


def test_the_divergence_is_that_of_the_clean_prediction_from_the_other():
    clean, other = torch.randn(9, 4), torch.randn(9, 4)
    found = divergence(clean.log_softmax(1), other.log_softmax(1))
    torch.testing.assert_close(found, kl(clean, other))
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (clean, other))
    torch.testing.assert_close(found, torch.distributions.kl_divergence(p, q))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_case_is_the_equation_and_the_batch_stays(lab, norm):
    """Steps up the divergence from the clean prediction, from x + 0.001 · N(0, 1)."""
    eps = {"linf": 0.1, "l2": 0.8}[norm]
    plugin = TRADES(eps=eps, alpha=eps / 3, steps=4, norm=norm)
    module = lab.module(plugin)
    given = lab.batch()
    out = plugin.transform_batch(given, module)
    assert out.x is given.x and out.targets is given.targets
    net = lab.copy().eval()
    clean = net(lab.x).detach()
    expected = lab.x + 0.001 * torch.empty_like(lab.x).normal_(generator=module.generator(plugin.option))
    expected = expected.clamp(0, 1)
    for _ in range(4):
        expected.requires_grad_()
        gradient = torch.autograd.grad(kl(clean, net(expected)).sum(), expected)[0]
        direction = gradient.sign() if norm == "linf" else gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = expected.detach() + eps / 3 * direction - lab.x
        if norm == "linf":
            delta = delta.clamp(-eps, eps)
        else:
            delta = delta * (eps / delta.flatten(1).norm(dim=1)).clamp_max(1).view(-1, 1, 1, 1)
        expected = (lab.x + delta).clamp(0, 1)
    close = (out.extra[WORST] - expected).abs() < 0.01 * eps
    assert close.float().mean() > 0.99  # next to x the divergence is nearly flat, and its slope rounded


def test_the_inner_steps_are_those_of_torchattacks(lab):
    torchattacks = pytest.importorskip("torchattacks")
    net, seed = lab.net.eval(), int(torch.randint(2**40, ()))
    torch.manual_seed(seed)
    expected = torchattacks.TPGD(net, eps=0.1, alpha=0.025, steps=7)(lab.x)
    generator = torch.Generator().manual_seed(seed)
    plugin = TRADES(eps=0.1, steps=7)
    module = lab.module(plugin, net=net)
    out = plugin.perturb(lab.x, plugin.raised(module, lab.x, {}, {}), 0.1, (0.0, 1.0), generator)
    close = (out - expected).abs() < 1e-5
    assert close.float().mean() > 0.99  # it sees the divergence as a mean


@pytest.mark.parametrize(
    ("eps", "kept"), [(0.1, torch.bfloat16), (0.01, torch.bfloat16), (0.1, torch.float16), (0.1, torch.float32)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_the_start_is_none_that_a_pass_rounds_away(eps, kept, whole):
    """Bright pixels have moved, as the first layer sees them, in mixed precision or in one that the whole model has."""
    x, plugin = torch.rand(50, 64) / 2 + 0.5, TRADES(eps=eps, alpha=1e-9, steps=1)
    x = x.to(kept) if whole else x
    with torch.autocast("cpu", torch.bfloat16 if whole else kept, enabled=not whole and kept != torch.float32):
        moved = plugin.perturb(x, lambda x: x.sum(), eps, None, torch.Generator())
    assert (moved.to(kept) != x.to(kept)).float().mean() > (0.6 if eps == 0.01 else 0.85)
    size = {torch.bfloat16: min(4 / 128, eps / 2), torch.float16: 4 / 1024, torch.float32: 0.001}[kept]
    assert float((moved - x).float().std()) == pytest.approx(size, rel=0.1)
    plugin.norm = "l2"
    with torch.autocast("cpu", torch.bfloat16 if whole else kept, enabled=not whole and kept != torch.float32):
        moved = plugin.perturb(x, lambda x: x.sum(), 8 * eps, None, torch.Generator())
    assert float((moved - x).float().norm(dim=1).mean()) == pytest.approx(8 * min(size, eps / 2), rel=0.1)


def step_by_hand(net, x, y, worst, beta, weight=None):
    """The gradient of J + β · KL, with the samples' weights."""
    weight = torch.ones(len(x)) if weight is None else weight
    outputs, others = net(x), net(worst)
    loss = functional.cross_entropy(outputs, y, reduction="none") + beta * kl(outputs, others)
    ((weight * loss).sum() / weight.sum()).backward()
    return [parameter.grad for parameter in net.parameters()]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_minimized(lab, parts, weighted, monkeypatch):
    """The gradient of a step is that of the equation, in whatever parts the batch is cut, and however samples weigh."""
    plugin, worst = TRADES(eps=0.1, steps=2, beta=3.0, eval_samples=0), []
    net = lab.copy()
    net[1], net[4] = nn.Identity(), nn.Identity()  # statistics and masks of parts would differ
    by_hand = nn.Sequential(*map(lambda layer: layer, lab.copy()))
    by_hand[1], by_hand[4] = nn.Identity(), nn.Identity()
    weight = torch.rand(48)
    inner = TRADES.transform_batch

    def weigh(self, batch, module):
        where = len(torch.cat(worst)) if worst else 0
        out = inner(self, batch, module)
        worst.append(out.extra[WORST])
        if weighted:
            out.weight = out.weighted("", weight[where : where + len(batch)])
        return out

    monkeypatch.setattr(TRADES, "transform_batch", weigh)
    module = RecipeModule(net, functional.cross_entropy, partial(torch.optim.SGD, lr=1.0), parts=parts)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(lab.x, lab.y), batch_size=48)
        lab.trainer(plugin, max_steps=1, limit_val_batches=0).fit(module, loader)
    gradients = step_by_hand(by_hand, lab.x, lab.y, torch.cat(worst), 3.0, weight if weighted else None)
    for old, new, gradient in zip(before, net.parameters(), gradients, strict=True):
        torch.testing.assert_close(old - new, gradient, atol=2e-6, rtol=1e-4)


def test_samples_that_are_left_clean_have_no_divergence(lab):
    plugin = TRADES(eps=0.1, clean=0.75, steps=2)
    module = lab.module(plugin)
    out = plugin.transform_batch(lab.batch(), module)
    kept = (out.extra[WORST] == lab.x).flatten(1).all(1)
    assert kept.sum() == 36
    seen = []
    module.mean = lambda values, batch, task: seen.append(values) or values.mean()
    plugin.penalty(module, out, module.outputs(out.x))  # dropout draws another mask for the other pass
    assert (seen[0][kept] == 0).all() and (seen[0][~kept] > 0).all()


@pytest.mark.parametrize("zero", [{"eps": 0.0}, {"beta": 0.0}])
def test_no_ball_or_no_factor_is_a_plain_run(lab, zero):
    trained, _ = lab.fit(TRADES(**{"eps": 0.1, "eval_eps": 0.1, **zero}))
    plain, _ = lab.fit()
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), plain.state_dict().values(), strict=True))
    assert TRADES(**zero).monitor is None


def test_mixed_targets_and_bf16_train(lab):
    module, trainer = lab.fit(TRADES(eps=0.1, steps=2), Mixup(alpha=1.0), precision="bf16-mixed")
    assert any(not torch.equal(new, old) for new, old in zip(module.model.parameters(), lab.net.parameters(), strict=True))
    assert 0 <= trainer.callback_metrics["val/acc_pgd"] <= 1


def test_several_labels_count_by_their_mean():
    plugin, setting = TRADES(eps=0.1, steps=1), Setting((6,), (Task("", "multilabel", 3),))
    module = RecipeModule(nn.Linear(6, 3), functional.binary_cross_entropy_with_logits, torch.optim.SGD)
    module.build([plugin], setting, devices=1)
    x, y = torch.randn(10, 6), torch.randint(2, (10, 3)).bool()
    out = plugin.transform_batch(Batch(x, {"": y.float()}, {"": y}), module)
    seen = []
    module.mean = lambda values, batch, task: seen.append(values) or values.mean()
    plugin.penalty(module, out, module.outputs(x))
    p, q = (module.model(inputs).sigmoid() for inputs in (x, out.extra[WORST]))
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1)
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=1e-4)


def test_refuses_numbers_and_a_label_that_nothing_looks_at(lab):
    module = RecipeModule(nn.Linear(6, 1), functional.mse_loss, torch.optim.SGD)
    with pytest.raises(Refusal, match="adversarial/trades needs a classification task"):
        module.build([TRADES()], Setting((6,), (Task("", "regression", 1),)), devices=1)
    with pytest.raises(Refusal, match="from its own prediction, whatever the label: use adversarial.label=true"):
        lab.module(TRADES(label="predicted"))
