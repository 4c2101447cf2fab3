from types import SimpleNamespace

import pytest
import torch

from plugins.base import Batch
from plugins.sampling.importance import ImportanceSampling


def remembered(plugin, step, samples, losses):
    """All losses after a pass of a step."""
    module = SimpleNamespace(progress=(step, None), loss_of_samples=lambda outputs, targets: outputs)
    batch = Batch(torch.zeros(len(samples), 1), {}, {}, samples=torch.tensor(samples))
    plugin.remember(module, batch, {"": torch.tensor(losses)})
    return pytest.approx(plugin.state_dict()["losses"].tolist())


def test_of_a_sample_that_is_drawn_twice_in_a_step_the_larger_loss_is_kept():
    """Whichever part of the step had it, as several processes keep the larger one."""
    plugin, none = ImportanceSampling(), torch.inf
    plugin.losses_before(0, 5)
    assert [0.1, none, 0.7, none, none] == remembered(plugin, 3, [2, 0], [0.7, 0.1])
    assert [0.1, 0.3, 0.7, none, none] == remembered(plugin, 3, [1, 2, 2], [0.3, 0.5, 0.6])
    assert [0.1, 0.3, 0.2, none, none] == remembered(plugin, 4, [2], [0.2])
    again = ImportanceSampling()
    again.load_state_dict(plugin.state_dict())
    assert [0.1, 0.3, 0.1, none, none] == remembered(again, 4, [2], [0.1])  # of another training
