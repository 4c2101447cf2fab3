import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from plugins.multitask.dwa import DynamicWeightAverage, dwa_weights
from tests.plugins.multitask.three_tasks import STEP, TASKS, assert_one_task_is_plain, characters, fit, net


def test_weights_written_out():
    last, before, temperature = torch.rand(4).double() + 0.1, torch.rand(4).double() + 0.1, 1.7
    powers = np.exp((last / before).numpy() / temperature)
    torch.testing.assert_close(dwa_weights(last, before, temperature), torch.from_numpy(4 * powers / powers.sum()))


def test_neither_the_scale_of_a_loss_nor_one_that_was_0_spoils_them():
    last, before, scale = torch.rand(3) + 0.1, torch.rand(3) + 0.1, torch.tensor([1e10, 1.0, 1e-10])
    torch.testing.assert_close(dwa_weights(last * scale, before * scale, 2.0), dwa_weights(last, before, 2.0))
    assert dwa_weights(torch.zeros(2), torch.zeros(2), 2.0).tolist() == [1, 1]


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_an_epoch_whose_mean_is_not_finite_counts_as_no_change(bad):
    spoiled, mean = torch.tensor([bad, 0.5]), torch.tensor([3.0, 0.5])
    for last, before in ((spoiled, mean), (mean, spoiled), (spoiled, spoiled)):
        assert dwa_weights(last, before, 2.0).tolist() == [1, 1]


@pytest.mark.parametrize("parts", [1, 2])
def test_weighs_by_the_means_of_the_epochs_before(parts):
    """Two steps an epoch; the losses of each step are those that are logged, and the objective is weighted by them."""
    module = fit(net(), characters(torch.seed() % 2**32, 2 * STEP), DynamicWeightAverage(1.0), parts=parts, steps=8)
    log = module.log
    losses = np.array([log.series(f"dwa/{task.name}_loss") for task in TASKS])
    weights = np.array([log.series(f"dwa/weight_{task.name}") for task in TASKS])
    assert losses.shape == weights.shape == (3, 8)
    means = losses.reshape(3, 4, 2).mean(2)
    assert weights[:, :4] == pytest.approx(np.ones((3, 4)))
    for epoch in (2, 3):
        powers = np.exp(means[:, epoch - 1] / means[:, epoch - 2])
        for step in (2 * epoch, 2 * epoch + 1):
            assert weights[:, step] == pytest.approx(3 * powers / powers.sum(), rel=1e-4)
    assert float(module.last_objective) == pytest.approx((weights[:, 7] * losses[:, 7]).sum(), rel=1e-4)


def test_a_run_resumed_within_an_epoch_equals_the_uninterrupted_one(tmp_path):
    from tests.recipes.engine.test_task_gradients import SaveAt

    def run(*others, resume=None):
        module = fit(net(), characters(0, 2 * STEP), DynamicWeightAverage(), *others, steps=8, resume=resume)
        return module.model.state_dict(), module.log.series("dwa/weight_even")[-1]

    path = tmp_path / "5.ckpt"
    (whole, weight), (resumed, again) = run(SaveAt(path, 5)), run(resume=path)
    assert weight == again != 1 and all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_refuses_data_of_which_no_epoch_ends():
    plugin = DynamicWeightAverage()
    plugin.prepare(SimpleNamespace(tasks=TASKS))
    with pytest.raises(RecipeError, match="multitask/dwa counts epochs, and the training data has no end"):
        plugin.on_train_start(SimpleNamespace(num_training_batches=math.inf), None)
    plugin.prepare(SimpleNamespace(tasks=TASKS[:1]))
    plugin.on_train_start(SimpleNamespace(num_training_batches=math.inf), None)


def test_one_task_equals_the_plain_run_bit_for_bit():
    assert_one_task_is_plain(DynamicWeightAverage)
