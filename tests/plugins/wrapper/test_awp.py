import copy

import pytest
import torch
from torch import nn

from plugins.adversarial.fgsm import FGSM
from plugins.base import Refusal, Selection, Setting, check_selection
from plugins.wrapper.asam import ASAM
from plugins.wrapper.awp import AWP, LayersPerturbed
from plugins.wrapper.gsam import GSAM
from plugins.wrapper.looksam import LookSAM
from plugins.wrapper.sam import SAM
from tests.plugins.wrapper.two_layers import closure_of, problem_of_two_layers, twins, weights_of

GAMMA, RATE = 0.2, 0.1


def test_is_the_published_procedure():
    """A copy that takes a step uphill, its difference scaled to γ of the norm of each weight, an update there, and back."""
    model, twin, x, y = twins()
    optimizer = LayersPerturbed(torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9), GAMMA)
    theirs = torch.optim.SGD(twin.parameters(), lr=RATE, momentum=0.9)
    for _ in range(4):
        closure = closure_of(model, optimizer, x, y)
        optimizer.step(closure)
        assert closure.calls == 2

        proxy = copy.deepcopy(twin)
        proxy.zero_grad()
        (-nn.functional.cross_entropy(proxy(x), y)).backward()
        torch.optim.SGD(proxy.parameters(), lr=0.01).step()
        difference = {
            name: new.detach() - old.detach()
            for (name, new), old in zip(proxy.named_parameters(), twin.parameters(), strict=True)
            if name.endswith("weight")
        }
        difference = {name: d * twin.get_parameter(name).norm().detach() / d.norm() for name, d in difference.items()}
        with torch.no_grad():
            for name, value in difference.items():
                twin.get_parameter(name).add_(value, alpha=GAMMA)
        theirs.zero_grad()
        nn.functional.cross_entropy(twin(x), y).backward()
        theirs.step()
        with torch.no_grad():
            for name, value in difference.items():
                twin.get_parameter(name).sub_(value, alpha=GAMMA)
        length = torch.stack([value.norm() for value in difference.values()]).norm() * GAMMA
        torch.testing.assert_close(optimizer.perturbation_norm, length)
        torch.testing.assert_close(weights_of(model), weights_of(twin))


def test_weights_come_back_bit_for_bit_and_zeros_stay():
    model, x, y = problem_of_two_layers()
    with torch.no_grad():
        model[0].weight.zero_()
    before = weights_of(model)

    class Still(torch.optim.SGD):
        def step(self, closure=None):
            closure()
            assert all(map(torch.equal, before, weights_of(model)))

    optimizer = LayersPerturbed(Still(model.parameters(), lr=RATE), 3.3)
    optimizer.step(closure_of(model, optimizer, x, y))
    assert optimizer.perturbation_norm.isfinite() and optimizer.sharpness > 0


def test_both_passes_see_the_samples_of_one_attack(problem):
    seen = []

    class Watch(AWP):
        def on_train_start(self, trainer, pl_module):
            super().on_train_start(trainer, pl_module)
            pl_module.model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]) if model.training else None)

    attack, technique = FGSM(eps=0.2), Watch(0.05)
    module = problem.fit(attack, technique, steps=2)
    names = [name for name, _ in module.model.named_parameters()]
    assert [names[place] for place in sorted(technique.wrapper.places)] == ["0.weight", "3.weight"]
    first, again, second, _ = seen[:4]
    assert torch.equal(first, again) and not torch.equal(first, second)
    torch.testing.assert_close((first - problem.batches[0][0]).abs(), torch.full_like(first, 0.2))
    assert not technique.remarks and len(problem.log.series("test_awp/sharpness")) == 2


def test_says_that_samples_are_clean_without_an_attack():
    technique = AWP()
    check_selection(Selection([technique], Setting((5,), ())))
    assert technique.remarks == ["weights are perturbed for clean samples; with +adversarial=pgd for attacked ones"]


@pytest.mark.parametrize("other", [ASAM(), GSAM(), LookSAM(), SAM()], ids=lambda other: other.option)
def test_two_that_seek_the_worst_point_are_refused(other):
    with pytest.raises(Refusal, match=r"^wrapper/\w+ cannot be combined with wrapper/\w+: each moves the weights .* out$"):
        check_selection(Selection([other, AWP()], Setting((5,), ())))


@pytest.mark.parametrize("kind", [ASAM, AWP, GSAM, LookSAM])
def test_scaled_gradients_are_refused(kind):
    with pytest.raises(Refusal, match="16-mixed: take bf16-mixed"):
        check_selection(Selection([kind()], Setting((5,), ()), precision="16-mixed"))
