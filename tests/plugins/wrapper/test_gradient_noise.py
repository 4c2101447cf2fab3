import math
from functools import partial

import pytest
import torch
from scipy.stats import kstest

from plugins.base import derive_seed
from plugins.clipping.norm import ClipNorm
from plugins.wrapper.gradient_noise import GradientNoise, add_noise, standard_deviation
from plugins.wrapper.sam import SAM

SGD = partial(torch.optim.SGD, lr=0.1)


def test_the_variance_fades_as_the_paper_says():
    for step in (0, 1, 99):
        assert standard_deviation(0.3, 0.55, step) ** 2 == pytest.approx(0.3 / (1 + step) ** 0.55)
    assert standard_deviation(0.3, 0.0, 1000) == pytest.approx(math.sqrt(0.3))


def test_adds_normal_noise_to_each_number():
    gradients = [torch.randn(200, 100), torch.randn(3000)]
    noisy = [gradient.clone() for gradient in gradients]
    add_noise(noisy, 0.7, torch.Generator().manual_seed(torch.seed() % 2**63))
    noise = torch.cat([(after - before).flatten() for after, before in zip(noisy, gradients, strict=True)]) / 0.7
    assert kstest(noise.numpy(), "norm").pvalue > 1e-8
    assert abs(float(torch.corrcoef(torch.stack([noise[:3000], noise[-3000:]]))[0, 1])) < 0.1


def test_updates_by_the_noisy_gradient_written_out(problem):
    seed, model = 5, problem.copy()
    module = problem.fit(GradientNoise(0.3, 0.55), steps=4, optimizer=SGD, seed=seed)
    for step, (x, y) in enumerate(problem.batches[:4]):
        gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y), list(model.parameters()))
        generator = torch.Generator().manual_seed(derive_seed(seed, "gradient_noise", step))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                noise = torch.randn(parameter.shape, generator=generator) * math.sqrt(0.3 / (1 + step) ** 0.55)
                parameter -= 0.1 * (gradient + noise)
    for trained, expected in zip(module.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)
    assert problem.log.series("gradient_noise/std") == pytest.approx([standard_deviation(0.3, 0.55, step) for step in range(4)])


def noise_of(problem, *others, optimizer=SGD, **arguments):
    """What the noise has added to each weight in one step."""
    with_noise, without = (
        problem.fit(*plugins, *others, steps=1, optimizer=optimizer, **arguments).model
        for plugins in ([GradientNoise(1.0)], [])
    )
    pairs = zip(with_noise.parameters(), without.parameters(), strict=True)
    return torch.cat([(noisy - plain).detach().flatten() for noisy, plain in pairs]) / -0.1


def test_comes_after_clipping_and_to_the_gradient_that_updates(problem):
    alone = noise_of(problem)
    assert float(alone.std()) == pytest.approx(1, abs=0.3)
    torch.testing.assert_close(noise_of(problem, ClipNorm(1e-3)), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(noise_of(problem, SAM(0.1)), alone, rtol=1e-4, atol=1e-5)


def test_each_weight_has_its_noise_whatever_order_the_optimizer_has(problem):
    def turned(groups):
        (group,) = groups
        return SGD([{"params": group["params"][::-1]}])

    torch.testing.assert_close(noise_of(problem, optimizer=turned), noise_of(problem), rtol=1e-4, atol=1e-5)


def test_goes_with_an_optimizer_that_asks_again(problem):
    module = problem.fit(GradientNoise(0.01), steps=3, optimizer=partial(torch.optim.LBFGS, lr=0.1, max_iter=3))
    assert all(parameter.isfinite().all() for parameter in module.model.parameters())
