from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import RecipeError
from plugins.diagnostics.gradient_noise import GradientStandardError, Spread, noise_scale, standard_errors
from plugins.wrapper.gradient_noise import GradientNoise
from recipes.engine.module import RecipeModule
from tests.plugins.conftest import Memory


def test_spread_is_that_of_numpy():
    vectors = [[torch.randn(3, 2) + 100, torch.randn(4)] for _ in range(7)]
    spread = Spread()
    for vector in vectors:
        spread.add(vector)
    for place in (0, 1):
        values = np.stack([vector[place].numpy().astype(np.float64) for vector in vectors])
        np.testing.assert_allclose(spread.mean[place], values.mean(0), rtol=1e-5)
        np.testing.assert_allclose(spread.squares[place], ((values - values.mean(0)) ** 2).sum(), rtol=1e-3)


def test_of_pieces_of_one_sample_it_is_sigma_by_root_n():
    gradients, spread = torch.randn(50, 6), Spread()
    for gradient in gradients:
        spread.add([gradient])
    expected = np.sqrt(gradients.numpy().var(0, ddof=1).sum() / 50)
    assert float(standard_errors(spread, 1, 50)) == pytest.approx(expected, rel=1e-4)


def test_the_noise_scale_is_that_of_the_paper():
    """tr(Σ)/‖G‖², without what the noise adds to the norm of a minibatch's gradient; nothing where it hides it."""
    error, norm = torch.tensor(0.5), torch.tensor(2.0)
    assert float(noise_scale(error, norm, 10)) == pytest.approx(10 * 0.25 / (4 - 0.25))
    assert torch.isnan(noise_scale(torch.tensor(2.0), torch.tensor(1.0), 10))


def digits():
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)


def gradients_of_samples(model, x, y):
    """(p − y) xᵀ and p − y of each sample: the gradient of a linear model's cross entropy."""
    error = model(x).softmax(1).detach() - nn.functional.one_hot(y, 10)
    return torch.cat([(error[:, :, None] * x[:, None, :]).flatten(1), error], 1).double().numpy()


def logged(model, batches, **arguments):
    """What is logged at the first step, the mean over some batches."""
    rows = []
    for batch in batches:
        log = Memory()
        module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.0), **arguments)
        quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = L.Trainer(max_steps=1, accelerator="cpu", logger=log, callbacks=[GradientStandardError(pieces=8)], **quiet)
        trainer.fit(module, DataLoader(TensorDataset(*batch), batch_size=len(batch[0])))
        rows.append(next(row for row in log.rows if "gradient_noise/error" in row))
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("parts", [1, 2])
def test_on_digits_the_error_falls_as_one_by_root_n(parts):
    """As lecture A has it: 100 times as many samples reduce the error by a factor of 10."""
    (x, y), model, draws = digits(), nn.Linear(64, 10), np.random.default_rng(0)
    of_samples = gradients_of_samples(model, x, y)
    sigma = np.sqrt(((of_samples - of_samples.mean(0)) ** 2).sum(1).mean())
    for n, apart in ((16, 0.3), (1600, 0.2)):  # five standard deviations
        batches = [draws.integers(0, len(x), n) for _ in range(3)]
        found = logged(model, [(x[batch], y[batch]) for batch in batches], parts=parts)
        assert found["gradient_noise/error"] == pytest.approx(sigma / np.sqrt(n), rel=apart)
        norms = [np.linalg.norm(of_samples[batch].mean(0)) for batch in batches]
        assert found["gradient_noise/norm"] == pytest.approx(np.mean(norms), rel=1e-3)
        if n == 1600:
            expected = sigma**2 / np.linalg.norm(of_samples.mean(0)) ** 2
            assert found["gradient_noise/scale"] == pytest.approx(expected, rel=0.3)


def test_pieces_of_one_sample_in_front_of_batch_norm_are_refused(problem):
    with pytest.raises(
        RecipeError,
        match="cuts 8 samples into pieces of one, .* type diagnostics.gradient_noise.pieces=4 or a larger data.batch_size",
    ) as error:
        problem.fit(GradientStandardError(pieces=8), steps=1)
    assert "\n" not in str(error.value)


def test_its_passes_draw_other_numbers_than_the_noise_of_that_name(problem, monkeypatch):
    owners = set()
    drawn = RecipeModule.generator

    def generator(self, owner, *arguments, **options):
        owners.add(owner)
        return drawn(self, owner, *arguments, **options)

    monkeypatch.setattr(RecipeModule, "generator", generator)
    problem.fit(GradientStandardError(), GradientNoise(), steps=1)
    assert {"gradient_noise", "diagnostics/gradient_noise"} <= owners


def test_a_step_of_one_sample_tells_nothing(problem):
    loader = DataLoader(TensorDataset(torch.randn(4, 6), torch.randint(3, (4,))), batch_size=1)
    model, problem.model = problem.model, None
    model[1] = nn.Identity()  # batch norm takes no single sample
    problem.copy = lambda: model
    with pytest.raises(RecipeError, match="a step has one: type data.batch_size=2"):
        problem.fit(GradientStandardError(), loader=loader)
