from itertools import chain

import numpy as np
import pytest
import torch
import yaml

from plugins.base import RecipeError
from recipes.data.arrays import as_features, as_images, as_labels
from recipes.data.base import Data
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.split import Split, pieces
from tests.command import ROOT
from tests.ranks import on_ranks


class Given(Data):
    """Data of the test's own: each input is its own number, so that samples can be told apart."""

    def __init__(self, targets, of_test=None, **split):
        super().__init__(**split)
        self.given = targets, of_test

    def load(self):
        return tuple(None if y is None else numbered(y) for y in self.given)


def numbered(y):
    return Split(torch.arange(float(len(y))).view(-1, 1), {"": y})


def split_of(y, **arguments):
    data = Given(y, **arguments)
    data.setup()
    return data


def flat(lists):
    return list(chain.from_iterable(lists))


def members(split):
    return split.x[:, 0].int().tolist()


# ------------------------------------------------------------------ splits


def test_splits_are_disjoint_and_stratified():
    y = torch.cat([torch.full((n,), label) for label, n in enumerate((400, 200, 100))])[torch.randperm(700)]
    data = split_of(y, validation=0.1, test=0.2)
    parts = {name: members(split) for name, split in data.splits.items()}
    assert sorted(flat(parts.values())) == list(range(700))
    assert {name: len(part) for name, part in parts.items()} == {"train": 504, "val": 56, "test": 140}
    for split in data.splits.values():
        assert torch.equal(split.targets[""], y[split.x[:, 0].long()])
        shares = torch.bincount(split.targets[""]) / len(split)
        torch.testing.assert_close(shares, torch.tensor([4, 2, 1]) / 7, atol=0.01, rtol=0)


def test_splits_depend_on_their_seed_alone():
    y = torch.randint(5, (300,))
    first = split_of(y)
    torch.manual_seed(99)
    np.random.seed(99)
    again = split_of(y, batch_size=7)  # whatever is trained with it
    other = split_of(y, split_seed=1)
    for name in ("train", "val", "test"):
        assert members(first.splits[name]) == members(again.splits[name])
        assert members(first.splits[name]) != members(other.splits[name])


def test_a_test_split_of_the_data_set_stays():
    data = split_of(torch.arange(60) % 3, of_test=torch.arange(40) % 3)
    assert members(data.splits["test"]) == list(range(40))
    assert sorted(members(data.splits["train"]) + members(data.splits["val"])) == list(range(60))


def test_loading_twice_does_nothing():
    data = split_of(torch.arange(50) % 2)
    before = data.splits
    data.given = None
    data.setup()
    assert data.splits is before


@pytest.mark.parametrize(
    "y",
    [
        torch.tensor([0] * 30 + [1] * 30 + [2]),  # a class with a single sample
        torch.arange(60) % 30,  # more classes than validation samples
        torch.randn(61),
    ],
)
def test_what_cannot_be_stratified_is_split_all_the_same(y):
    data = split_of(y, validation=0.1, test=0.2)
    assert sorted(flat(members(split) for split in data.splits.values())) == list(range(len(y)))


def test_tasks():
    data = split_of(torch.tensor([0, 1, 4] * 10))
    assert [(task.name, task.kind, task.outputs) for task in data.tasks] == [("", "classification", 5)]
    assert [(task.kind, task.outputs) for task in split_of(torch.randn(30)).tasks] == [("regression", 1)]
    assert data.shape == (1,)
    setting = data.setting(7)
    assert setting.seed == 7 and torch.cat(list(setting.training_inputs())).equal(data.splits["train"].x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be a whole number ≥ 1, got 0"),
        ({"batch_size": 2.5}, "data.batch_size must be"),
        ({"batch_size": "half"}, 'data.batch_size must be a whole number ≥ 1 or "full"'),
        ({"validation": 0.0}, "data.validation must be a share between 0 and 1"),
        ({"test": 1.0}, "data.test must be a share between 0 and 1"),
        ({"test": True}, "data.test must be"),
        ({"split_seed": -1}, "data.split_seed must be a whole number from 0 to 2147483647, got -1"),
        ({"split_seed": 2**31, "folds": 5}, "data.split_seed must be a whole number from 0 to 2147483647"),
        ({"split_seed": True}, "data.split_seed must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        Given(torch.zeros(3), **arguments)


def test_too_few_samples_are_one_line():
    with pytest.raises(RecipeError, match="data.test=0.2 does not split 1 samples"):
        split_of(torch.zeros(1))


def test_a_test_class_that_training_does_not_know():
    with pytest.raises(RecipeError, match="class 3 is in the test split, but training knows classes 0 to 1 only"):
        split_of(torch.arange(20) % 2, of_test=torch.tensor([0, 3]))
    with pytest.raises(RecipeError, match="differ in kind"):
        split_of(torch.arange(20) % 2, of_test=torch.tensor([0.5, 3]))


def test_a_training_split_of_one_class_is_refused():
    y = torch.tensor([0] * 30 + [1])
    with pytest.raises(
        RecipeError, match="training labels are of one class, 0, after the split: there is nothing to tell apart"
    ):
        split_of(y, split_seed=4)  # by which the only sample of the class 1 is held out
    split_of(y, split_seed=0)
    with pytest.raises(RecipeError, match="all 31 training labels are of one class, 0: there is nothing to tell apart"):
        split_of(y * 0)


def test_pieces_are_raw_inputs_in_the_unit_range():
    x = torch.randint(0, 256, (10, 3), dtype=torch.uint8)
    found = list(pieces(Split(x, {}), 4))
    assert [len(piece) for piece in found] == [4, 4, 2]
    assert torch.equal(torch.cat(found), x.float() / 255)
    floats = torch.randn(5, 2)
    (piece,) = pieces(Split(floats, {}))
    assert torch.equal(piece, floats)


# ------------------------------------------------------------------ steps


def epoch_of(loader):
    return [x[:, 0].int().tolist() for x, _ in loader]


def test_an_epoch_has_each_sample_once_in_an_order_of_seed_and_epoch():
    split = numbered(torch.randint(3, (23,)))
    done = [0]
    loader = StepLoader(split, 5, 3, position=lambda: done[0])
    assert len(loader) == 4
    first = epoch_of(loader)
    done[0] = 4
    second = epoch_of(loader)
    assert all(len(set(flat(epoch))) == 20 for epoch in (first, second)) and first != second
    torch.manual_seed(5)
    assert epoch_of(StepLoader(split, 5, 3)) == first
    assert epoch_of(StepLoader(split, 5, 4)) != first
    assert {number for epoch in range(40) for number in StepLoader(split, 5, 3).order(epoch).flatten().tolist()} == set(
        range(23)
    )
    for x, targets in loader:
        assert torch.equal(targets[""], split.targets[""][x[:, 0].long()])


def test_a_resumed_epoch_goes_on_where_it_was():
    split = numbered(torch.zeros(30))
    whole = epoch_of(StepLoader(split, 4, 0)) + epoch_of(StepLoader(split, 4, 0, position=lambda: 7))
    for position in range(14):
        rest = epoch_of(StepLoader(split, 4, 0, position=lambda position=position: position))
        assert rest == whole[position : 7 if position < 7 else 14]


@pytest.mark.parametrize(
    ("samples", "batch_size", "parts", "step", "steps"),
    [
        (23, "full", 1, 23, 1),
        (23, "full", 4, 20, 1),
        (23, 100, 1, 23, 1),
        (23, 100, 2, 22, 1),
        (23, 5, 2, 10, 2),
        (23, 23, 1, 23, 1),
        (1, 32, 1, 1, 1),
    ],
)
def test_step_sizes(samples, batch_size, parts, step, steps):
    loader = StepLoader(numbered(torch.zeros(samples)), batch_size, 0, parts)
    assert len(loader) == steps and [len(batch) for batch in epoch_of(loader)] == [step] * steps


def test_more_parts_than_samples_are_refused():
    with pytest.raises(RecipeError, match="3 training samples cannot be cut into 1 devices × 4 parts: use fewer"):
        StepLoader(numbered(torch.zeros(3)), 1, 0, parts=4)


def test_repeats_give_the_same_batch_several_times():
    loader = StepLoader(numbered(torch.zeros(12)), 4, 0)
    loader.repeats = 2
    assert len(loader) == 3
    first = epoch_of(loader)
    assert first[0] == first[1] != first[2]
    plain = epoch_of(StepLoader(numbered(torch.zeros(12)), 4, 0))
    assert first == [plain[0], plain[0], plain[1]]


def test_batches_are_copies():
    """A technique that writes into its batch must not reach the data set."""
    split = numbered(torch.zeros(12))
    for x, targets in StepLoader(split, 4, 0):
        x.fill_(-1)
        targets[""].fill_(-1)
    assert members(split) == list(range(12)) and (split.targets[""] == 0).all()


def pieces_of(samples, batch_size, parts):
    split = numbered(torch.arange(samples))
    steps = [x[:, 0].int().tolist() for x, _ in StepLoader(split, batch_size, 0, parts, world=2)]
    return steps, epoch_of(EvaluationLoader(split, 4)), len(EvaluationLoader(split, 4))


def test_two_ranks_get_the_pieces_of_one():
    """Two devices with one part each, and one device with two parts, see the same pieces in the same order."""
    (first, evaluated, count), (second, rest, same) = on_ranks(2, pieces_of, 22, 6, 1)
    whole = epoch_of(StepLoader(numbered(torch.arange(22)), 3, 0, parts=2))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert len(first) == 3 and all(len(piece) == 3 for piece in first)
    # evaluation: each sample once, as many batches on both
    assert count == same == len(evaluated) == len(rest)
    assert sorted(flat(evaluated + rest)) == list(range(22))


def refusal_of(*arguments):
    with pytest.raises(RecipeError) as error:
        pieces_of(*arguments)
    return str(error.value)


def test_a_batch_that_two_ranks_cannot_share_is_refused():
    for message in on_ranks(2, refusal_of, 22, 5, 1):
        assert (
            "a step of 5 samples cannot be cut into 2 devices × 1 parts: type data.batch_size=4 or data.batch_size=6" in message
        )
    (first, _, _), (second, _, _) = on_ranks(2, pieces_of, 23, "full", 1)
    assert len(first[0]) == len(second[0]) == 11 and not set(first[0]) & set(second[0])


# ------------------------------------------------------------------ evaluation


@pytest.mark.parametrize(("samples", "size"), [(10, 3), (10, 500), (1, 4), (12, 4)])
def test_evaluation_goes_over_all_samples_in_order(samples, size):
    loader = EvaluationLoader(numbered(torch.zeros(samples)), size)
    batches = epoch_of(loader)
    assert len(batches) == len(loader)
    assert [number for batch in batches for number in batch] == list(range(samples))
    assert max(map(len, batches)) <= size and max(map(len, batches)) - min(map(len, batches)) <= 1


def test_clean_training_samples_are_the_same_each_time():
    loader = StepLoader(numbered(torch.zeros(50)), 8, 2)
    first = epoch_of(loader.evaluation_batches(20))
    assert first == epoch_of(loader.evaluation_batches(20))
    assert len({number for batch in first for number in batch}) == 20
    assert len(flat(epoch_of(loader.evaluation_batches(500)))) == 50


# ------------------------------------------------------------------ arrays


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 8, 7), (5, 1, 8, 7)),
        ((5, 8, 7, 3), (5, 3, 8, 7)),
        ((5, 3, 8, 7), (5, 3, 8, 7)),
        ((5, 8, 7, 1), (5, 1, 8, 7)),
        ((5, 1, 8, 7), (5, 1, 8, 7)),
    ],
)
def test_layouts_of_images(shape, expected):
    x = np.random.rand(*shape)
    images = as_images(x, "x")
    assert images.shape == expected and images.dtype == torch.float32
    moved = x[:, None] if len(shape) == 3 else x.transpose(0, 3, 1, 2) if shape[1:] != expected[1:] else x
    np.testing.assert_allclose(images.numpy(), moved, rtol=1e-6)
    assert as_images((x * 255).astype(np.uint8), "x").dtype == torch.uint8


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3, 4, 5, 6)), "x must be images"),
        (np.full((2, 4, 4), 255), "x holds images from 255 to 255: give bytes, or numbers between 0 and 1"),
        (np.full((2, 4, 4), -0.1), "between 0 and 1"),
        (np.full((2, 4, 4), np.nan), "x holds 32 values that are NaN or infinite"),
    ],
)
def test_bad_images(x, message):
    with pytest.raises(RecipeError, match=message):
        as_images(x, "x")


def test_features_beyond_32_bits_are_refused():
    with pytest.raises(RecipeError, match="x holds 1 values that are NaN or infinite"):
        as_features(np.array([[1.0, 1e300]]), "x")


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.array([2, 0, 1], dtype=np.uint8), torch.tensor([2, 0, 1])),
        (np.array([[2], [0]]), torch.tensor([2, 0])),
        (np.array([True, False]), torch.tensor([1, 0])),
        (np.array(["b", "a", "b"]), torch.tensor([1, 0, 1])),
        (np.array([0.5, 2.0]), torch.tensor([0.5, 2.0])),
    ],
)
def test_targets(y, expected):
    found = as_labels(y, "y")
    assert found.dtype == expected.dtype and torch.equal(found, expected)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((3, 2, 0), int), "y must have one value a sample"),
        (np.zeros((3, 2, 2)), "y must have one value a sample"),
        (np.array([0, -1]), "from -1 to 0, out of range"),
        (np.array([0, 10**6]), "out of range"),
        (np.array([0.5, np.inf]), "NaN or infinite"),
        (np.array([1 + 2j]), "numbers or names, got complex128"),
    ],
)
def test_bad_targets(y, message):
    with pytest.raises(RecipeError, match=message):
        as_labels(y, "y")


def test_a_numbered_loader_tells_which_samples_a_batch_has():
    split, position, seen = numbered(torch.arange(22)), 3, []
    loader = StepLoader(split, 5, 3, position=lambda: position)
    plain = list(loader)
    loader.numbered = True
    for batch, (x, _) in zip(loader, plain, strict=True):
        assert torch.equal(batch.x, x) and batch.weight is None
        assert torch.equal(split.x[batch.samples], x)
        seen.append(batch.epoch)
    position = 4
    assert seen == [0] and [batch.epoch for batch in loader] == [1] * 4


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_all_data_takes_can_be_typed(path):
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"batch_size", "eval_batch_size", "validation", "split_seed", "train_samples"} <= node.keys()
