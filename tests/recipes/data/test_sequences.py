"""Sequences of different lengths come filled up with zeros, with a mask, in any order and from any split."""

import torch

from recipes.data.loaders import StepLoader
from recipes.data.sequences import sequences
from recipes.data.split import fingerprint


def some(samples=9, features=3):
    found = [torch.randn(length, features) for length in torch.randint(1, 8, (samples,)).tolist()]
    return found, sequences(found, {"": torch.arange(samples)}, torch.arange(samples) // 2)


def equal(source, index, expected):
    x, targets = source.fetch(torch.tensor(index))
    for number, place in enumerate(index):
        length = len(expected[place])
        assert x["mask"][number].tolist() == [True] * length + [False] * (source.longest - length)
        assert torch.equal(x["features"][number, :length], expected[place]) and not x["features"][number, length:].any()
    return targets[""].tolist()


def test_samples_by_index():
    found, source = some()
    assert source.longest == max(map(len, found)) and source.shape["features"].shape == (source.longest, 3)
    assert equal(source, [3, 0, 0, 8], found) == [3, 0, 0, 8]
    part = source[torch.tensor([7, 2])] + source[4:6]
    assert equal(part, [3, 0, 1], [found[7], found[2], found[4], found[5]]) == [5, 7, 2]
    assert part.groups.tolist() == [3, 1, 2, 2] and part.shape == source.shape
    x, _ = source.between(2, 5)
    assert torch.equal(x["features"], source.fetch(torch.arange(2, 5))[0]["features"])
    assert source.to(torch.device("cpu")) is source


def test_all_of_it_goes_to_a_device():
    there = some()[1].to(torch.device("meta"))
    part = there[torch.tensor([3, 0], device="meta")]  # as training samples are measured aside
    assert part.groups.device == part.device == torch.device("meta") and len(part) == len(part.groups) == 2


def test_a_fingerprint_is_of_what_is_there():
    found, source = some()
    longer = sequences([*found, torch.randn(20, 3)], {"": torch.arange(10)}, None)[:9]
    assert longer.longest == 20 and fingerprint({"": longer}) == fingerprint({"": source})
    other = sequences([found[0] + 1, *found[1:]], {"": torch.arange(9)})
    cut = sequences([found[0][:-1], found[0][-1:], *found[1:]], {"": torch.arange(10)})
    assert len({fingerprint({"": each}) for each in (source, other, cut)}) == 3


def test_a_loader_takes_them():
    found, source = some()
    batches = list(StepLoader(source, 4, 0))
    assert len(batches) == 2
    for x, targets in batches:
        for row, label in enumerate(targets[""].tolist()):
            assert torch.equal(x["features"][row][x["mask"][row]], found[label])
