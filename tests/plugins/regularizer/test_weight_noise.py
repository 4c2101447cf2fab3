import copy

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import OptimizerWrapper, Plugin, Stage
from plugins.loss.by_task import LossByTask
from plugins.regularizer.weight_noise import WeightNoise, gaussian_like, noisy
from recipes.engine.module import RecipeModule


class TwoPasses(Plugin):
    """Asks for gradients twice a step, as SAM does."""

    stage = Stage.WRAPPER

    def wrap_optimizer(self, optimizer):
        class Wrapper(OptimizerWrapper):
            def step(self, closure=None):
                closure()
                return super().step(closure)

        return Wrapper(optimizer)


def fit(model, *plugins, steps=1, parts=1, data=None):
    """The trained model, and the weights that each of its forward passes saw."""
    model, seen = copy.deepcopy(model), []
    model.register_forward_pre_hook(
        lambda model, inputs: seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
    )
    module = RecipeModule(model, LossByTask(), lambda groups: torch.optim.SGD(groups, 0.1), parts=parts)
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = data or TensorDataset(torch.randn(32, 30), torch.randint(10, (32,)))
    trainer.fit(module, DataLoader(data, 8))
    return model, seen[-steps * parts * (1 + any(isinstance(plugin, TwoPasses) for plugin in plugins)) :]


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(30, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10))


@pytest.mark.parametrize("relative", [False, True])
def test_the_noise_is_gaussian(relative):
    weight, generator = 3 + 4 * torch.randn(200, 100), torch.Generator().manual_seed(1)
    noise = gaussian_like(weight, 0.2, relative, generator)
    std = 0.2 * (weight.double() ** 2).mean().sqrt().item() if relative else 0.2
    assert noise.std().item() == pytest.approx(std, rel=0.03)
    assert abs(noise.mean().item()) < 5 * std / noise.numel() ** 0.5
    assert (noise.abs() < std).double().mean().item() == pytest.approx(0.6827, abs=0.02)


def test_relative_noise_of_complex_weights_is_as_large_as_they_are():
    weight = torch.randn(200, 100, dtype=torch.complex64)
    noise = gaussian_like(weight, 0.2, True, torch.Generator().manual_seed(1))
    assert noise.abs().square().mean().sqrt().item() == pytest.approx(
        0.2 * weight.abs().square().mean().sqrt().item(), rel=0.03
    )


def test_the_noise_is_removed_bit_for_bit_also_when_the_pass_fails():
    weights = [nn.Parameter(1e3 * torch.randn(50, 40)), nn.Parameter(1e-6 * torch.randn(9, 8))]
    before = [weight.detach().clone() for weight in weights]
    with pytest.raises(ZeroDivisionError), noisy(weights, 0.37, False, torch.Generator()):  # noqa: PT012
        assert not any(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
        _ = 1 / 0
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_the_update_is_the_gradient_at_the_noisy_weights_made_to_the_clean_ones(model):
    data = TensorDataset(torch.randn(8, 30), torch.randint(10, (8,)))
    trained, [seen] = fit(model, WeightNoise(0.1), data=data)
    for name, parameter in model.named_parameters():
        assert torch.equal(seen[name], parameter) != (name in ("0.weight", "3.weight"))  # noise on weights only
    assert (seen["0.weight"] - model[0].weight).std().item() == pytest.approx(0.1, rel=0.15)
    noised = copy.deepcopy(model)
    noised.load_state_dict({**model.state_dict(), **seen})
    loss = nn.functional.cross_entropy(noised(data.tensors[0]), data.tensors[1])
    gradients = torch.autograd.grad(loss, list(noised.parameters()))
    for parameter, before, gradient in zip(trained.parameters(), model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter, before - 0.1 * gradient)


def test_a_draw_for_each_step_and_part_and_one_for_both_passes_of_a_step(model):
    _, seen = fit(model, WeightNoise(0.1), TwoPasses(), steps=1, parts=2)
    noises = [weights["0.weight"] - model[0].weight for weights in seen]  # first pass: both parts; second pass: both parts
    assert torch.equal(noises[0], noises[2]) and torch.equal(noises[1], noises[3])
    assert not torch.equal(noises[0], noises[1])
    _, [first, second] = fit(model, WeightNoise(1.0), steps=2)
    difference = first["0.weight"] - second["0.weight"]
    assert difference.std().item() == pytest.approx(2**0.5, rel=0.15)


def test_the_global_random_numbers_are_not_touched():
    state, weight = torch.get_rng_state(), nn.Parameter(torch.ones(3, 3))
    with noisy([weight], 1.0, True, torch.Generator()):
        pass
    assert torch.equal(torch.get_rng_state(), state)
