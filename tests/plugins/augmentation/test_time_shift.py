import numpy as np
import pytest
import torch

from plugins.augmentation.time_shift import TimeShift, sources
from plugins.base import Batch, Refusal, Selection, Setting, Task, check_selection
from plugins.inputs import Entry

Y = {"": torch.zeros(256, dtype=torch.long)}


def named(samples=256, steps=9, holes=False):
    """Sequences of numbers with a mask, of which some have no step."""
    mask = torch.arange(steps) < torch.randint(0, steps + 1, (samples, 1))
    mask = torch.rand(samples, steps) < 0.6 if holes else mask
    return {"features": torch.randn(samples, steps, 3), "loudness": torch.randn(samples, steps), "mask": mask}


def entries(x):
    return {name: Entry(tuple(value.shape[1:]), str(value.dtype).removeprefix("torch.")) for name, value in x.items()}


@pytest.mark.parametrize("holes", [False, True])
def test_256_shifts_of_what_a_mask_keeps_are_numpys(build, holes):
    plugin, x = TimeShift(0.6), named(holes=holes)
    module = build(plugin, shape=entries(x), seed=int(torch.randint(2**31, ())))
    before = {name: value.clone() for name, value in x.items()}
    out = plugin.transform_batch(Batch(x, Y, Y), module).x
    shares = 0.6 * (2 * torch.rand(256, generator=module.generator("time_shift")) - 1)
    assert torch.equal(out["mask"], x["mask"]) and len(shares.unique()) > 250  # of 24 bits: two may be equal
    for i, mask in enumerate(x["mask"]):
        shift = int((shares[i] * mask.sum()).round())
        for name in ("features", "loudness"):
            expected = before[name][i].numpy().copy()
            expected[mask.numpy()] = np.roll(expected[mask.numpy()], shift, axis=0)
            assert torch.equal(out[name][i], torch.from_numpy(expected)) and torch.equal(x[name], before[name])


@pytest.mark.parametrize(("shape", "axis"), [((9,), 1), ((9, 4), 1), ((2, 4, 9), 3)])
def test_steps_of_a_series_and_time_of_a_spectrogram(build, shape, axis):
    plugin, x = TimeShift(0.5), torch.randn(60, *shape)
    out = plugin.transform_batch(Batch(x, Y, Y), build(plugin, shape=shape)).x
    shifts = [next(s for s in range(-4, 6) if torch.equal(torch.roll(a, s, axis - 1), b)) for a, b in zip(x, out, strict=True)]
    assert len(set(shifts)) > 5


def test_the_largest_shift_is_the_share():
    valid = torch.ones(1, 10, dtype=torch.bool)
    assert sources(valid, torch.tensor([0.3])).tolist() == [[7, 8, 9, 0, 1, 2, 3, 4, 5, 6]]
    assert sources(valid, torch.tensor([-0.1])).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]]


def test_refuses_what_has_no_steps():
    of = lambda shape, **further: Setting(shape, (Task("", "classification", 2),), **further)  # noqa: E731
    words = {
        "no number to move": of(
            {"features": Entry((9, 3), "float32"), "words": Entry((9,), "int64"), "mask": Entry((9,), "bool")}
        ),
        "points without one": of({"points": Entry((9, 3), "float32"), "mask": Entry((9,), "bool")}),
        "stand for something": of((9,), tokens=True),
        "of one length": of({"words": Entry((9,), "int64"), "mask": Entry((9,), "bool")}),
        r"has the shape \(2, 3, 4, 5\)": of((2, 3, 4, 5)),
    }
    for text, setting in words.items():
        with pytest.raises(Refusal, match=f"augmentation/time_shift .*{text}.*leave"):
            check_selection(Selection([TimeShift()], setting))
    table = Selection([TimeShift()], of((9,)), chosen=frozenset({"data/csv"}))
    with pytest.raises(Refusal, match="a sample is the columns of a table"):
        check_selection(table)
