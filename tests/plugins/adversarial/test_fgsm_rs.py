import pytest
import torch

from plugins.adversarial._ascent import random_start
from plugins.adversarial.fgsm_rs import FGSMRandomStart
from tests.plugins.adversarial.slope import gradient_of, loss_of


@pytest.mark.parametrize("alpha", [None, 0.06])
def test_a_batch_is_attacked_by_the_equation(lab, alpha):
    """Start in the ball, clamp, one step of 1.25 ε, back into the ball and the range."""
    plugin = FGSMRandomStart(eps=0.1, alpha=alpha)
    module = lab.module(plugin)
    out = plugin.transform_batch(lab.batch(), module).x
    noise = torch.empty_like(lab.x).uniform_(-0.1, 0.1, generator=module.generator(plugin.option))
    noisy = (lab.x + noise).clamp(0, 1)
    moved = noisy + (alpha or 0.125) * gradient_of(lab.copy().eval(), noisy, lab.y).sign()
    expected = (lab.x + (moved - lab.x).clamp(-0.1, 0.1)).clamp(0, 1)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)
    assert (out.double() - lab.x.double()).abs().max() <= 0.1


def test_equals_torchattacks(lab):
    torchattacks = pytest.importorskip("torchattacks")
    net, seed = lab.net.eval(), int(torch.randint(2**40, ()))
    attack = torchattacks.FFGSM(net, eps=0.1, alpha=0.125)
    torch.manual_seed(seed)
    expected = attack(lab.x, lab.y)
    generator = torch.Generator().manual_seed(seed)
    torch.randn(lab.x.shape, generator=generator)  # which it draws and overwrites
    out = FGSMRandomStart(eps=0.1).perturb(lab.x, loss_of(net, lab.y), 0.1, (0.0, 1.0), generator)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)


def test_l2_is_one_projected_step_along_the_gradient():
    x, slope, seed = torch.randn(50, 1, 8, 8), torch.randn(1, 8, 8), int(torch.randint(2**40, ()))
    out = FGSMRandomStart(eps=0.5, norm="l2").perturb(
        x, lambda x: (x * slope).sum(), 0.5, None, torch.Generator().manual_seed(seed)
    )
    delta = random_start(x, 0.5, "l2", torch.Generator().manual_seed(seed)) + 0.625 * slope / slope.norm()
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(out - x, delta * (0.5 / length).clamp_max(1), atol=1e-5, rtol=0)
    assert (out.double() - x.double()).flatten(1).norm(dim=1).max() <= 0.5


def test_alpha_rises_with_eps_during_warm_up():
    x = torch.zeros(4, 1, 8, 8)
    out = FGSMRandomStart(eps=0.2, alpha=0.4).perturb(x, torch.sum, 0.05, None, torch.Generator())
    torch.testing.assert_close(out, torch.full_like(x, 0.05))  # a step of 0.1 goes to the border from anywhere
