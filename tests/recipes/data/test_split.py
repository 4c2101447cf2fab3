import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.data.base import Data
from recipes.data.digits import Digits
from recipes.data.image_files import Held
from recipes.data.images import Form
from recipes.data.sequences import sequences
from recipes.data.source import Source
from recipes.data.split import Split, fingerprint, nested


def test_fewer_samples_are_a_part_of_more_and_keep_the_shares():
    generator = torch.Generator().manual_seed(int(np.random.default_rng().integers(1 << 30)))
    labels = torch.multinomial(torch.tensor([0.6, 0.3, 0.07, 0.03]), 700, replacement=True, generator=generator)
    counts = labels.bincount(minlength=4).double()
    before: set[int] = set()
    for samples in (1, 10, 57, 200, 400, 699, 700):
        found = nested(labels, samples, seed=3)
        assert len(found) == samples and bool((found[1:] > found[:-1]).all())
        assert before <= set(found.tolist())
        before = set(found.tolist())
        shares = labels[found].bincount(minlength=4) - samples * counts / 700
        assert float(shares.abs().max()) <= 2  # each class has a start of its own between two samples
    assert nested(labels, 200, seed=3).tolist() == nested(labels, 200, seed=3).tolist() != nested(labels, 200, seed=4).tolist()


def test_numbers_and_class_maps_are_drawn_as_one_class():
    for labels in (torch.rand(50, 1), torch.randint(0, 3, (50, 4, 4))):
        assert set(nested(labels, 10, 0).tolist()) < set(nested(labels, 30, 0).tolist())


def test_fewer_training_samples_leave_the_other_splits_alone():
    splits = {}
    for samples in (200, 400, None):
        data = Digits(train_samples=samples)
        data.setup()
        splits[samples] = data.splits
    for name in ("val", "test"):
        assert len({fingerprint({name: found[name]}) for found in splits.values()}) == 1
    rows = {samples: {image.numpy().tobytes() for image in found["train"].x} for samples, found in splits.items()}
    assert rows[200] < rows[400] < rows[None] and len(splits[200]["train"]) == 200
    counts = splits[200]["train"].labels[""].bincount()
    assert int(counts.min()) >= 18 and int(counts.max()) <= 22


@pytest.mark.parametrize(
    ("samples", "line"),
    [(0, "data.train_samples must be a whole number ≥ 1"), (5000, "must be at most 1293, the training samples there are")],
)
def test_numbers_of_samples_that_there_are_not_are_refused(samples, line):
    with pytest.raises(RecipeError, match=line):
        Digits(train_samples=samples).setup()


def test_the_fingerprint_takes_columns_of_any_strides():
    x, y = torch.rand(6, 3), torch.rand(6, 4)
    narrow = Split(x, {"": y[:, :1]})
    assert fingerprint({"": narrow}) == fingerprint({"": Split(x.clone(), {"": y[:, :1].clone()})})


@pytest.mark.parametrize("arguments", [{}, {"folds": 4}, {"train_samples": 40}])
def test_groups_of_ones_own_are_in_one_split_each(arguments):
    groups = torch.arange(200).view(40, 5).T.flatten() // 5  # of five samples each, far from one another
    x = torch.arange(200.0).view(-1, 1)

    class Given(Data):
        def load(self):
            split = Split(x, {"": torch.arange(200) % 3}, weight=x[:, 0] + 1)
            split.groups = groups
            return split, None

    for seed in range(3):
        data = Given(validation=0.2, split_seed=seed, **arguments)
        data.setup()
        found = {}
        for name, split in data.splits.items():
            rows = split.x[:, 0].long()
            assert torch.equal(split.groups, groups[rows]) and torch.equal(split.weight, x[rows, 0] + 1)
            found[name] = {*split.groups.tolist()}
        assert all(found.values()) and sum(map(len, found.values())) == len(set.union(*found.values()))


class Rows(Source):
    labels = {"": torch.arange(6) // 2}

    def __len__(self):
        return 6

    def fetch(self, index):
        return torch.zeros(len(index), 2), {"": self.labels[""][index]}


def test_weights_and_groups_go_with_their_samples():
    weight, groups = torch.rand(6), torch.arange(6) // 2
    sequence = sequences([torch.rand(3, 2) for _ in range(6)], {"": groups})
    held = Held(torch.zeros(6, 1, 2, 2), {"": groups}, Form((2, 2), 1), [b""] * 6, "")
    for source in (Split(torch.rand(6, 2), {"": groups}), sequence, held, Rows()):
        source.weight, source.groups = weight, groups
        part = source[torch.tensor([4, 1, 2])]
        for made, index in ((part, [4, 1, 2]), (part[:2] + part[2:], [4, 1, 2]), (source[1:3], [1, 2])):
            assert torch.equal(made.weight, weight[index]) and torch.equal(made.groups, groups[index])
        assert (part + type(part).__getitem__(part, slice(1))).groups.tolist() == [2, 0, 1, 2]
        if source.to(torch.device("meta")) is not source:
            assert part.to(torch.device("meta")).groups.is_meta and part.to(torch.device("meta")).weight.is_meta


def test_folds_cover_all_samples_once_and_keep_the_shares():
    seen, contents = [], set()
    for fold in range(5):
        data = Digits(folds=5, fold=fold)
        data.setup()
        sizes = {name: len(split) for name, split in data.splits.items()}
        assert sum(sizes.values()) == 1797 and sizes["test"] in (359, 360)
        counts = data.splits["test"].labels[""].bincount()
        assert int(counts.min()) >= 34 and int(counts.max()) <= 38
        assert data.held_out is not None
        seen += data.held_out.tolist()
        contents.add(data.content)
    assert sorted(seen) == list(range(1797)) and len(contents) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"folds": 1}, "data.folds must be a whole number ≥ 2"),
        ({"folds": 3, "fold": 3}, "data.fold must be below data.folds, which is 3, got 3"),
        ({"fold": 1}, "data.fold must be below data.folds, which is null"),
        ({"fold": -1}, "data.fold must be a whole number ≥ 0"),
        ({"folds": 2000}, "data.folds=2000 does not cut 1797 samples"),
    ],
)
def test_folds_that_there_are_not_are_refused(arguments, line):
    with pytest.raises(RecipeError, match=line):
        Digits(**arguments).setup()
