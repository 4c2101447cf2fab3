from fractions import Fraction

import pytest
import torch

from plugins.adversarial._ascent import pgd, random_start
from plugins.adversarial.pgd import PGD
from tests.plugins.adversarial.slope import gradient_of, loss_of


def fresh_generator():
    return torch.Generator().manual_seed(torch.randint(2**40, ()).item())


def test_the_equation(lab):
    net, eps, alpha = lab.net.eval(), 0.1, 0.03
    start = random_start(lab.x, eps, "linf", fresh_generator())
    expected = (lab.x + start).clamp(0, 1)
    for _ in range(5):
        moved = expected + alpha * gradient_of(net, expected, lab.y).sign()
        expected = (lab.x + (moved - lab.x).clamp(-eps, eps)).clamp(0, 1)
    out = pgd(lab.x, loss_of(net, lab.y), eps, alpha, 5, "linf", (0.0, 1.0), start)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)


def test_the_equation_in_l2(lab):
    net, eps, alpha = lab.net.eval(), 0.7, 0.3
    start = random_start(lab.x, eps, "l2", fresh_generator())
    expected = (lab.x + start).clamp(0, 1)
    for _ in range(4):
        gradient = gradient_of(net, expected, lab.y)
        for i in range(48):
            delta = expected[i] + alpha * gradient[i] / gradient[i].norm() - lab.x[i]
            if delta.norm() > eps:
                delta = eps * delta / delta.norm()
            expected[i] = (lab.x[i] + delta).clamp(0, 1)
    out = pgd(lab.x, loss_of(net, lab.y), eps, alpha, 4, "l2", (0.0, 1.0), start)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_equals_torchattacks(lab, norm):
    torchattacks = pytest.importorskip("torchattacks")
    net, eps = lab.net.eval(), {"linf": 0.1, "l2": 0.8}[norm]
    attack = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm](
        net, eps=eps, alpha=eps / 4, steps=7, random_start=False
    )
    out = pgd(lab.x, loss_of(net, lab.y), eps, eps / 4, 7, norm, (0.0, 1.0))
    torch.testing.assert_close(out, attack(lab.x, lab.y), atol=1e-4 if norm == "l2" else 1e-6, rtol=0)


@pytest.mark.parametrize("eps", [8 / 255, 0.031373, 0.1, 0.3, 1e-3])
def test_exactly_inside_the_ball(eps):
    """No pixel is further away than eps, in exact arithmetic and in float32 alike."""
    x = torch.rand(40, 1, 8, 8)
    x[:10] *= 1e-3
    x[10:20] = 1 - x[10:20] * 1e-3
    x[20, 0, 0], x[21, 0, 0] = 0.0, 1.0
    up = torch.randn_like(x)
    start = random_start(x, eps, "linf", fresh_generator())
    out = pgd(x, lambda x: (x * up).sum(), eps, eps / 2, 6, "linf", (0.0, 1.0), start)
    assert (out - x).abs().max().item() <= eps
    limit = Fraction(eps)
    assert all(
        abs(Fraction(a) - Fraction(b)) <= limit for a, b in zip(out.flatten().tolist(), x.flatten().tolist(), strict=True)
    )
    assert out.min() >= 0 and out.max() <= 1
    inner = (x > eps) & (x < 1 - eps)
    torch.testing.assert_close((out - x)[inner], (eps * up.sign())[inner], atol=3e-7, rtol=0)  # and as far as it may


def test_exactly_inside_the_l2_ball():
    x, up = torch.rand(40, 3, 8, 8), torch.randn(40, 3, 8, 8)
    out = pgd(x, lambda x: (x * up).sum(), 0.5, 0.2, 6, "l2", (0.0, 1.0), random_start(x, 0.5, "l2", fresh_generator()))
    lengths = (out.double() - x.double()).flatten(1).norm(dim=1)
    assert lengths.max() <= 0.5
    free = pgd(x, lambda x: (x * up).sum(), 0.5, 0.2, 6, "l2")
    torch.testing.assert_close((free - x).flatten(1).norm(dim=1), torch.full((40,), 0.5), atol=1e-4, rtol=0)


def test_random_starts_fill_the_ball_and_differ_between_samples():
    x, generator = torch.zeros(500, 4), fresh_generator()
    cube = random_start(x, 0.5, "linf", generator)
    assert cube.abs().max() <= 0.5 and cube.abs().max() > 0.49 and abs(cube.mean()) < 0.05
    lengths = random_start(x, 0.5, "l2", generator).norm(dim=1)
    assert lengths.max() <= 0.5 * (1 + 1e-6) and abs(lengths.mean() - 0.25) < 0.05
    assert len(cube.unique(dim=0)) == 500


def test_a_training_batch_is_attacked_by_projected_steps(lab):
    plugin = PGD(eps=0.1, alpha=0.04, steps=3)
    module = lab.module(plugin)
    out = plugin.transform_batch(lab.batch(), module).x
    net = lab.copy().eval()
    start = random_start(lab.x, 0.1, "linf", module.generator("pgd"))
    expected = pgd(lab.x, loss_of(net, lab.y), 0.1, 0.04, 3, "linf", (0.0, 1.0), start)
    assert torch.equal(out, expected)
    again = PGD(eps=0.1, alpha=0.04, steps=3)
    assert torch.equal(again.transform_batch(lab.batch(), lab.module(again)).x, out)  # a function of the seed
    quarter = PGD(eps=0.1, steps=3)
    expected = pgd(lab.x, loss_of(net, lab.y), 0.1, 0.025, 3, "linf", (0.0, 1.0), start)
    assert torch.equal(quarter.transform_batch(lab.batch(), lab.module(quarter)).x, expected)


def test_is_stronger_than_one_step_and_chooses_the_best_model(lab):
    module, trainer = lab.fit(PGD(eps=0.1))
    assert module.plugins[0].monitor == "val/acc_pgd"
    assert 0 <= trainer.callback_metrics["val/acc_pgd"] <= trainer.callback_metrics["val/acc"]
    assert PGD(eps=0.0).monitor is None
