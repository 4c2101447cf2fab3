import numpy as np
import pytest
import torch

from plugins.augmentation.speed import SpeedPerturbation, stretched
from plugins.base import Batch, RecipeError
from tests.plugins.augmentation.test_time_shift import Y, entries, named


@pytest.mark.parametrize("holes", [False, True])
def test_256_speeds_of_what_a_mask_keeps_are_numpys(build, holes):
    plugin, x = SpeedPerturbation(0.5, 2.0), named(holes=holes)
    module = build(plugin, shape=entries(x), seed=int(torch.randint(2**31, ())))
    before = {name: value.clone() for name, value in x.items()}
    out = plugin.transform_batch(Batch(x, Y, Y), module).x
    factors = 0.5 + 1.5 * torch.rand(256, generator=module.generator("speed"))
    assert len(factors.unique()) > 250 and out["mask"].dtype == torch.bool  # of 24 bits: two may be equal
    for i, mask in enumerate(x["mask"].numpy()):
        places = (factors[i] * torch.arange(9.0)).numpy()
        there = places <= mask.sum() - 1
        assert out["mask"][i].tolist() == there.tolist()
        assert not out["features"][i, ~torch.from_numpy(there)].any()
        for column in range(3) if there.any() else ():
            found = out["features"][i, :, column].numpy()[there]
            kept = before["features"][i, :, column].numpy()[mask]
            np.testing.assert_allclose(found, np.interp(places[there], np.arange(len(kept)), kept), atol=1e-5)
    assert all(torch.equal(x[name], before[name]) for name in x)


def test_at_its_own_speed_a_sequence_is_an_exact_copy():
    x, mask = torch.randn(20, 9, 3), torch.arange(9) < torch.arange(20).unsqueeze(1) % 10
    (out,), there = stretched([x], mask, torch.ones(20))
    assert torch.equal(there, mask) and torch.equal(out[mask], x[mask])


def test_without_a_mask_the_last_step_is_held(build):
    plugin, x = SpeedPerturbation(2.0, 2.0), torch.randn(5, 1, 4, 8)
    out = plugin.transform_batch(Batch(x, Y, Y), build(plugin, shape=(1, 4, 8))).x
    assert torch.equal(out, x[..., [0, 2, 4, 6, 7, 7, 7, 7]])
    with pytest.raises(RecipeError, match="low must be at most high, 1, got 2"):
        SpeedPerturbation(2.0, 1.0)
