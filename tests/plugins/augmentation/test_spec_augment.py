import pytest
import torch

from plugins.augmentation.spec_augment import SpecAugment, strips
from plugins.base import Batch, Refusal, Selection, Setting, Task, check_selection
from plugins.inputs import Entry
from tests.plugins.augmentation.test_time_shift import Y, entries


@pytest.mark.parametrize("fill", [None, -3.5])
def test_256_draws_hide_strips_of_what_a_mask_keeps(build, fill):
    plugin = SpecAugment(time=4, frequency=3, strips=2, share=0.5, fill=fill)
    mask = torch.arange(12) < torch.randint(1, 13, (256, 1))
    x = {"features": torch.randn(256, 12, 7), "mask": mask}
    module, before = build(plugin, shape=entries(x), seed=int(torch.randint(2**31, ()))), x["features"].clone()
    out, generator = plugin.transform_batch(Batch(x, Y, Y), module).x, module.generator("spec_augment")
    drawn = [torch.rand(2, 256, 2, generator=generator) for _ in range(2)]
    hidden, seen = torch.zeros(256, 12, 7, dtype=torch.bool), set()
    for i, length in enumerate(mask.sum(1).tolist()):
        for axis, (whole, widest) in enumerate(((length, 4), (7, 3))):
            for strip in range(2):
                most = min(widest, int(0.5 * whole))
                width = int(drawn[axis][0, i, strip] * (most + 1))
                start = int(drawn[axis][1, i, strip] * (whole - width + 1))
                part = slice(start, start + width)
                hidden[(i, part) if axis == 0 else (i, slice(None), part)] = True
        hidden[i, length:] = False
        seen.add(tuple(hidden[i].flatten().tolist()))
        value = before[i, :length].mean() if fill is None else fill
        expected = before[i].clone()
        expected[hidden[i]] = value
        torch.testing.assert_close(out["features"][i], expected)
    assert len(seen) > 150 and torch.equal(out["mask"], mask) and torch.equal(x["features"], before)


def test_strips_are_as_wide_and_where_they_should_be():
    lengths = torch.tensor([20]).expand(30_000)
    start, stop = strips(lengths, 6, 0.2, torch.rand(2, 30_000, 1))
    width = (stop - start)[:, 0]
    assert width.bincount().tolist() == pytest.approx([6000] * 5, abs=6 * 6000**0.5)
    assert start[width == 4].unique().tolist() == list(range(17)) and int(stop.max()) == 20


def test_images_are_spectrograms_whose_last_dimension_is_time(build):
    x = torch.rand(200, 2, 5, 9) + 1
    for plugin, axis in ((SpecAugment(time=3, frequency=0, share=0.4, fill=0), 3), (SpecAugment(0, 3, share=0.4, fill=0), 2)):
        out = plugin.transform_batch(Batch(x, Y, Y), build(plugin, shape=(2, 5, 9))).x
        other = {2, 3} - {axis}
        hidden = out == 0
        assert torch.equal(hidden.any(1).any(*(each - 1 for each in other)), hidden.all(1).all(*(each - 1 for each in other)))
        assert hidden.any() and not hidden.flatten(1).all(1).any()


def test_refuses_what_has_no_bands():
    for shape in ((9,), {"loudness": Entry((9,), "float32"), "mask": Entry((9,), "bool")}):
        with pytest.raises(Refusal, match=r"augmentation/spec_augment needs spectrograms \(steps, bands\).*leave"):
            check_selection(Selection([SpecAugment()], Setting(shape, (Task("", "classification", 2),))))
