import copy
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning import Callback
from torch import nn
from torch.nn import functional

from plugins.base import RecipeError
from plugins.curriculum.layer_freezing import LayerFreezing, frozen_from
from plugins.regularizer.l1 import L1Penalty
from plugins.wrapper.lookahead import Lookahead
from plugins.wrapper.sam import SAM
from recipes.check.selections import refusal_of

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.05
sgd = partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)


def published(elapsed, start, level):
    """The share of the layers that Composer's pseudo-code freezes."""
    if elapsed <= start:
        return 0.0
    return level * ((elapsed - start) / (1.0 - start))


@pytest.mark.parametrize("layers", [1, 4, 11])
def test_as_many_layers_are_frozen_as_published(layers):
    for elapsed, start, level in torch.rand(60, 3, dtype=torch.float64).tolist():
        frozen = [number for number in range(layers) if frozen_from(number, layers, start, level) <= elapsed]
        assert frozen == list(range(int(published(elapsed, start, level) * layers)))


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            nn.Tanh(),
            nn.Linear(8, 8),
            nn.Tanh(),
            nn.Linear(8, 8),
            nn.Tanh(),
            nn.Linear(8, 3),
        )


@pytest.fixture
def deep(problem):
    """The problem with three layers before its head."""
    problem.model = Net()
    problem.copy = lambda: (net := Net()).load_state_dict(problem.model.state_dict()) and net
    return problem


def by_hand(problem, frozen_after):
    """A loop with momentum and weight decay written out; what is frozen is left out of it."""
    model, velocity, kept = problem.copy(), {}, []
    for step, (x, y) in enumerate(problem.batches):
        frozen = {name for name, at in frozen_after.items() if step >= at}
        for name, child in model.named_children():
            child.train(name not in frozen)
        trained = {name: p for name, p in model.named_parameters() if name.partition(".")[0] not in frozen}
        gradients = torch.autograd.grad(functional.cross_entropy(model(x), y), [*trained.values()])
        with torch.no_grad():
            for (name, weight), gradient in zip(trained.items(), gradients, strict=True):
                gradient = gradient + DECAY * weight
                velocity[name] = MOMENTUM * velocity[name] + gradient if name in velocity else gradient
                weight -= RATE * velocity[name]
        kept.append(copy.deepcopy(model.state_dict()))
    return model, kept


def test_trains_as_a_loop_that_leaves_out_what_is_frozen(deep):
    expected, steps = by_hand(deep, {"0": 4, "1": 4, "3": 6})  # s + (1 − s) · 1/3 = 1/2 and 3/4 of 8 steps
    module = deep.fit(LayerFreezing(0.25), steps=8, optimizer=sgd)
    for name, value in module.model.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name])
    assert torch.equal(steps[3]["0.weight"], steps[7]["0.weight"]) and not torch.equal(
        steps[5]["5.weight"], steps[7]["5.weight"]
    )
    assert deep.log.series("layer_freezing/layers") == [0.0] * 4 + [1.0] * 2 + [2.0] * 2
    assert [p.requires_grad for p in module.model.parameters()] == [False] * 6 + [True] * 4


@pytest.mark.parametrize("beside", [SAM, partial(L1Penalty, 0.01, True), partial(Lookahead, 3)])
def test_nothing_else_moves_what_is_frozen(deep, beside):
    models = []

    class Keep(Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            models.append(copy.deepcopy(module.model.state_dict()))

    deep.fit(LayerFreezing(0.25), beside(), Keep(), steps=8, optimizer=sgd)
    for name, frozen_after in (("0.weight", 4), ("1.bias", 4), ("1.running_mean", 4), ("3.weight", 6)):
        moved = [not torch.equal(one[name], other[name]) for one, other in pairwise(models)]
        assert moved == [step + 1 < frozen_after for step in range(7)], name


def test_goes_on_where_it_was(deep, tmp_path, weights):
    whole = deep.fit(LayerFreezing(0.25), steps=16, optimizer=sgd, save=(tmp_path / "half.ckpt", 8))
    resumed = deep.fit(LayerFreezing(0.25), steps=16, optimizer=sgd, resume=tmp_path / "half.ckpt")
    first, second = weights(whole), weights(resumed)
    assert not [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert resumed.steps_done == 16 and not resumed.model[0].weight.requires_grad


def test_tells_what_freezes_when():
    plugin = LayerFreezing(0.5, 0.9)
    plugin.starts(Net())
    assert plugin.remarks == ["freezes 0 and 1 from 69% of the training on, 3 from 87% of the training on"]
    plugin = LayerFreezing(0.5, 0.1)
    assert all(at > 1 for at in plugin.starts(Net()).values()) and "nothing before the end" in plugin.remarks[0]
    assert plugin.starts(Net())["7.weight"] == math.inf


def test_refuses_a_training_without_an_end_and_a_model_of_one_layer(deep):
    with pytest.raises(RecipeError, match="counts shares of the training, and it has no end: set max_epochs or max_steps"):
        deep.fit(LayerFreezing(), steps=-1, max_epochs=-1)
    with pytest.raises(RecipeError, match="LBFGS makes a step of those before, which would move what is frozen: take another"):
        deep.fit(LayerFreezing(), optimizer=torch.optim.LBFGS)
    with pytest.raises(RecipeError, match="needs layers before the head"):
        LayerFreezing().starts(nn.Linear(2, 2))


def test_refuses_what_would_thaw_frozen_layers():
    assert "each says by itself which layers rest" in refusal_of(["curriculum/layer_freezing", "finetuning/freeze"])
    assert "take stopping=early_retrain" in refusal_of(["curriculum/layer_freezing", "stopping/early_continue"])
    assert refusal_of(["curriculum/layer_freezing", "stopping/early_retrain"]) is None


def test_refuses_an_optimizer_that_evaluates_other_weights_than_those_that_rest():
    told = "cannot be combined with optimizer/schedule_free: what is frozen would rest at other weights than those that are evaluated"
    assert told in refusal_of(["curriculum/layer_freezing", "optimizer/schedule_free"])
    assert "statistics of other weights" in refusal_of(["curriculum/layer_freezing", "averaging/swa"])
