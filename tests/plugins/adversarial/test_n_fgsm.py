import pytest
import torch
from torch.nn import functional

from plugins.adversarial.n_fgsm import NFGSM


def written_out(x, slope, eps, alpha, low=-float("inf"), high=float("inf"), seed=0):
    """x + η + α · sign(∇ J(x + η)) for J(x) = Σ slope(x), each clamped."""
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) * 4 * eps - 2 * eps
    noisy = (x + noise).clamp(low, high)
    return (noisy + alpha * slope(noisy).sign()).clamp(low, high)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_is_the_equation(bounds, alpha):
    x, towards = torch.rand(6, 2, 4, 4), torch.rand(2, 4, 4)
    out = NFGSM(eps=0.2, alpha=alpha).perturb(
        x, lambda x: -((x - towards) ** 4).sum(), 0.2, bounds, torch.Generator().manual_seed(3)
    )
    expected = written_out(x, lambda x: -4 * (x - towards) ** 3, 0.2, alpha or 0.2, *(bounds or ()), seed=3)
    torch.testing.assert_close(out, expected)


def test_leaves_the_ball_and_no_further_than_noise_and_step():
    x = torch.randn(50, 1, 8, 8)
    moved = (NFGSM().perturb(x, torch.sum, 0.1, None, torch.Generator()) - x).abs()
    assert 0.28 < moved.max() <= 0.3 + 1e-6 and (moved > 0.1).float().mean() > 0.4


def test_l2_is_one_step_from_noise_of_at_most_twice_eps():
    x = torch.randn(200, 1, 8, 8)
    slope = torch.randn(1, 8, 8)
    out = NFGSM(eps=0.1, alpha=0.7, norm="l2").perturb(x, lambda x: (x * slope).sum(), 0.1, None, torch.Generator())
    noise = (out - 0.7 * slope / slope.norm() - x).flatten(1).norm(dim=1)
    assert 0.15 < noise.max() <= 0.2 + 1e-5 and noise.min() < 0.05


def test_alpha_rises_with_eps_during_warm_up():
    x = torch.zeros(4, 1, 8, 8)
    plugin = NFGSM(eps=0.2, alpha=0.4)
    out = plugin.perturb(x, torch.sum, 0.05, None, torch.Generator().manual_seed(1))
    torch.testing.assert_close(out, written_out(x, torch.ones_like, 0.05, 0.1, seed=1))


def test_a_batch_is_attacked_through_the_model(lab):
    plugin = NFGSM(eps=0.1)
    module = lab.module(plugin)
    out = plugin.transform_batch(lab.batch(), module).x
    generator = module.generator(plugin.option)
    noise = torch.empty_like(lab.x).uniform_(-0.2, 0.2, generator=generator)
    noisy = (lab.x + noise).clamp(0, 1).requires_grad_()
    net = lab.copy().eval()
    gradient = torch.autograd.grad(functional.cross_entropy(net(noisy), lab.y), noisy)[0]
    torch.testing.assert_close(out, (noisy + 0.1 * gradient.sign()).clamp(0, 1).detach())
