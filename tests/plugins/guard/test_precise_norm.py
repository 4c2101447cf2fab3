import copy
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from plugins.averaging.ema import EMA
from plugins.base import RecipeError, Setting
from plugins.guard.precise_norm import PreciseNorm
from plugins.norm_statistics import measured_norms
from plugins.normalization.ghost_batch import GhostBatchNorm
from plugins.plugin import acts_in_steps
from recipes.engine.module import RecipeModule


class Validated(L.Callback):
    """The tensors of the model at each validation."""

    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, module):
        self.seen.append(copy.deepcopy(module.model))


def measured(model, batches):
    """The model with statistics as torch measures them: the mean over the batches, each alike."""
    found = copy.deepcopy(model)
    update_bn((x for x, _ in batches), found)
    return found.state_dict()


def test_what_is_validated_and_kept_has_the_statistics_of_its_weights(problem):
    validated = Validated()
    module = problem.fit(PreciseNorm(), validated, steps=16)
    assert len(validated.seen) == 2
    for model in (*validated.seen, module.model):
        expected, found = measured(model, problem.batches), model.state_dict()
        for name, value in expected.items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(found[name], value)


def test_what_is_trained_stays_the_same_bit_for_bit(problem):
    plain, precise = problem.fit(steps=16), problem.fit(PreciseNorm(), steps=16)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), precise.model.parameters(), strict=True))
    assert not torch.equal(plain.model[1].running_mean, precise.model[1].running_mean)
    assert plain.metrics["val/loss"] != precise.metrics["val/loss"]
    assert precise.model[1].num_batches_tracked == 16 and precise.model[1].momentum == 0.1 and precise.model[1].training


def test_beside_an_average_they_are_those_of_the_average(problem):
    models = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            models.append(copy.deepcopy(module.model))

    module = problem.fit(PreciseNorm(), EMA(0.5), Watch())
    averaged = AveragedModel(models[0], avg_fn=lambda mean, new, count: 0.5 * mean + 0.5 * new)
    for model in models:
        averaged.update_parameters(model)
    expected = measured(averaged.module, problem.batches)
    torch.testing.assert_close(module.model[1].running_var, expected["1.running_var"])
    torch.testing.assert_close(module.model[3].weight, expected["3.weight"])


def test_a_layer_that_rests_keeps_its_statistics(problem):
    problem.model[1].eval()
    copied = problem.copy

    def resting():
        model = copied()
        model[1].eval()
        return model

    problem.copy = resting
    module = problem.fit(PreciseNorm())
    assert torch.equal(module.model[1].running_mean, torch.zeros(8)) and not module.model[1].training


def test_refuses_a_model_without_anything_to_measure():
    for model in (nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3))):
        module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
        with pytest.raises(RecipeError, match="has none: type normalization=batch, or leave it out"):
            module.build([PreciseNorm()], Setting((6,), ()), devices=1)


def test_statistics_of_each_sample_are_left_alone():
    """A layer that measures them takes no mean over batches."""
    model = nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True), nn.BatchNorm1d(3), GhostBatchNorm(3, 4))
    assert measured_norms(model) == [model[1], model[2]]


def test_a_sanity_check_measures_nothing(problem):
    """Nobody knows by then which layers rest."""
    copied = problem.copy

    def resting():
        model = copied()
        model[1].eval().running_mean.fill_(0.5)
        return model

    problem.copy = resting
    module = problem.fit(PreciseNorm(), num_sanity_val_steps=2, steps=2)
    assert torch.equal(module.model[1].running_mean, torch.full((8,), 0.5))


def test_it_acts_in_no_step_so_that_a_time_of_its_own_is_refused():
    assert not acts_in_steps(PreciseNorm)
