"""Data sets and data modules of a user's own as samples by index."""

import pickle
import random
from itertools import chain

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from plugins.errors import RecipeError
from recipes.data.base import Data
from recipes.data.fetching import fetched
from recipes.data.own import LoadersData, SamplesData
from recipes.data.samples import Part, Samples
from recipes.data.source import Source
from recipes.data.split import Split


class Pairs(Dataset):
    def __init__(self, give=lambda number: (torch.full((3,), float(number)), number % 4), size=60):
        self.give, self.size = give, size

    def __len__(self):
        return self.size

    def __getitem__(self, number):
        return self.give(number)


def tensors(size, seed, **further):
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(torch.randn(size, 5, generator=generator), torch.arange(size) % 3), batch_size=7, **further)


def module(**loaders):
    def giving(loader):
        return lambda self: loader

    return type("Mod", (L.LightningDataModule,), {name: giving(loader) for name, loader in loaders.items()})


def loaded(data):
    data.setup()
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_those_of_the_data_set(workers):
    data = loaded(SamplesData(Pairs, workers, validation=0.2, test=0.2))
    seen = []
    for split in data.splits.values():
        index = torch.randperm(len(split))
        x, targets = split.fetch(index)
        assert x.dtype == torch.float32 and torch.equal(targets[""], split.labels[""][index])
        assert torch.equal(x[:, 0].long() % 4, targets[""])
        seen += x[:, 0].tolist()
    assert sorted(seen) == list(range(60))
    assert data.tasks[0].outputs == 4 and data.shape == (3,)


def test_the_same_content_has_the_same_fingerprint_and_other_content_another():
    one, again, other = (
        loaded(SamplesData(lambda give=give: Pairs(give)))
        for give in (
            lambda number: (torch.full((3,), float(number)), number % 4),
            lambda number: (np.full(3, float(number)), number % 4),
            lambda number: (torch.full((3,), float(number + (number == 59))), number % 4),
        )
    )
    assert (one.content, one.fingerprint) == (again.content, again.fingerprint)
    assert one.content != other.content


def test_inputs_and_targets_by_name_images_and_class_names():
    def give(number):
        return {"tokens": torch.arange(4) + number % 3, "mask": np.ones(4, bool)}, {"a": number % 2, "b": float(number)}

    data = loaded(SamplesData(lambda: Pairs(give)))
    assert {name: entry.kind for name, entry in data.shape.items()} == {"tokens": "int64", "mask": "bool"}
    assert data.shape["tokens"].largest == 5
    assert [(task.name, task.kind) for task in data.tasks] == [("a", "classification"), ("b", "regression")]
    images = Pairs(lambda number: (torch.full((1, 4, 4), number, dtype=torch.uint8), number % 2))
    images.classes = ["cat", "dog"]
    data = loaded(SamplesData(lambda: images))
    assert data.tasks[0].names == ("cat", "dog") and data.splits["train"].fetch(torch.tensor([0]))[0].dtype == torch.uint8


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (lambda number: torch.zeros(3), "expected a pair .input, target., got a Tensor alone"),
        (lambda number: {"x": torch.zeros(3), "y": 1}, "got a dict with x, y"),
        (lambda number: (torch.zeros(3), 1, 2), "got a tuple of 3"),
        (lambda number: (torch.zeros(3), "cat"), "give a class as a whole number"),
        (lambda number: ("text", 1), "expected an input that is a tensor"),
        (lambda number: (torch.zeros(3 + number // 50), 1), "of one shape"),
        (lambda number: (torch.rand(3), number % 2), "another sample each time"),
        (
            lambda number: (torch.full((3,), float(number)), random.randrange(99)),
            "gives another target each time .* in __init__",
        ),
        (
            lambda number: (torch.zeros(3), float("nan") if number in (7, 9) else 0.5),
            "y is NaN .* in 2 of 60 .* number 7 .from 0",
        ),
        (
            lambda number: (torch.zeros(9, 8, 3, dtype=torch.uint8), number % 2),
            "9 × 8 bytes have their 3 channels last: .*permute",
        ),
        (lambda number: ({"x": torch.zeros(9, 8, 1, dtype=torch.uint8)}, number % 2), "have their 1 channels last"),
        (lambda number: (torch.tensor([1.0, float("nan") if number == 33 else 0.0]), number % 2), "NaN or infinite"),
        (lambda number: (torch.zeros(3), [0, 1][number]), r"test_own.py, line \d+: IndexError: list index out of range"),
        (lambda number: (torch.zeros(2, dtype=torch.complex64), 1), "complex"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_no_sample(give, said, workers):
    with pytest.raises(RecipeError, match=said):
        loaded(SamplesData(lambda: Pairs(give), workers))


def test_a_data_set_without_a_length_or_samples():
    class Endless(Dataset):
        def __getitem__(self, number):
            return torch.zeros(2), 0

    with pytest.raises(RecipeError, match="Endless has no __len__"):
        loaded(SamplesData(Endless))
    with pytest.raises(RecipeError, match="has no samples"):
        loaded(SamplesData(lambda: Pairs(size=0)))
    with pytest.raises(RecipeError, match="^Stream is an IterableDataset, whose samples cannot be reached by their number"):
        loaded(SamplesData(Stream))


def test_the_splits_of_a_module_are_its_own():
    parts = {"train": tensors(40, 0, shuffle=True), "val": tensors(11, 1), "test": tensors(9, 2)}
    kind = module(**{f"{name}_dataloader": loader for name, loader in parts.items()})
    data = loaded(LoadersData(kind))
    assert data.batch_size == 7 and loaded(LoadersData(kind, batch_size=4)).batch_size == 4
    for name, loader in parts.items():
        x, targets = data.splits[name].fetch(torch.arange(len(data.splits[name])))
        assert torch.equal(x, loader.dataset.tensors[0]) and torch.equal(targets[""], loader.dataset.tensors[1])
    both = data.splits["train"] + data.splits["val"]  # as a retraining on all data takes them
    assert torch.equal(
        both.fetch(torch.tensor([50, 0]))[0][:, 0],
        torch.stack([parts["val"].dataset[10][0][0], parts["train"].dataset[0][0][0]]),
    )


@pytest.mark.parametrize("names", [("train",), ("train", "val"), ("train", "test")])
def test_what_a_module_lacks_is_split_off(names):
    loaders = {
        name: tensors(size, seed)
        for seed, (name, size) in enumerate((("train", 40), ("val", 12), ("test", 10)))
        if name in names
    }
    data = loaded(
        LoadersData(module(**{f"{name}_dataloader": loader for name, loader in loaders.items()}), validation=0.25, test=0.25)
    )
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sum(sizes.values()) == sum(len(loader.dataset) for loader in loaders.values()) and min(sizes.values()) >= 8
    if "val" in names:
        assert torch.equal(data.splits["val"].fetch(torch.arange(12))[0], loaders["val"].dataset.tensors[0])


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_folds_leave_the_validation_of_a_module_alone(fold):
    parts = {"train": tensors(30, 0), "val": tensors(50, 1)}
    data = loaded(LoadersData(module(**{f"{name}_dataloader": loader for name, loader in parts.items()}), folds=3, fold=fold))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "val": 50, "test": 10}
    assert torch.equal(data.splits["val"].fetch(torch.arange(50))[0], parts["val"].dataset.tensors[0])
    found = torch.cat([data.splits[name].fetch(torch.arange(len(data.splits[name])))[0] for name in ("train", "test")])
    assert torch.equal(found.sort(0).values, parts["train"].dataset.tensors[0].sort(0).values)


def test_the_collate_function_of_each_loader_counts():
    def doubled(samples):
        return torch.stack([x for x, _ in samples]) * 2, torch.tensor([int(y) for _, y in samples])

    train, val = tensors(20, 0, collate_fn=doubled), tensors(6, 1)
    samples = Samples([Part(train.dataset, train.collate_fn), Part(val.dataset, val.collate_fn)], "Mod")
    assert samples.between(3, 3)[0].shape == (0, 5)  # as a rank gets them that has none
    x, _ = samples.fetch(torch.tensor([25, 3, 20, 0]))
    a, b = train.dataset.tensors[0], val.dataset.tensors[0]
    assert torch.equal(x, torch.stack([b[5], 2 * a[3], b[0], 2 * a[0]]))


def test_data_is_prepared_before_it_is_loaded(tmp_path):
    class Written(L.LightningDataModule):
        def prepare_data(self):
            torch.save(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), tmp_path / "x.pt")

        def setup(self, stage):
            self.x = torch.load(tmp_path / "x.pt", weights_only=True)

        def train_dataloader(self):
            return DataLoader(TensorDataset(self.x, torch.arange(30) % 2), batch_size=6)

    assert sum(map(len, loaded(LoadersData(Written)).splits.values())) == 30


class Wrong(Data):
    def load(self):
        return torch.zeros(3), None


class Fails(Data):
    def load(self):
        return self.nothing


class Rows(Source):
    def __init__(self, limit):
        self.limit = limit

    def __len__(self):
        return 40

    @property
    def labels(self):
        return {"": torch.arange(40) % 2}

    def fetch(self, index):
        return torch.ones(len(index), 3), {"": [torch.arange(40) % 2][self.limit][index]}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Wrong, r"Wrong.load\(\) must return the samples"),
        (Fails, r"Fails.load\(\) fails: test_own.py, line \d+: AttributeError"),
    ],
)
def test_data_that_does_not_load(kind, said):
    with pytest.raises(RecipeError, match=said):
        loaded(kind())


def test_images_of_channels_first_and_floats_of_any_order_are_taken():
    for x in (torch.zeros(3, 9, 8, dtype=torch.uint8), torch.zeros(9, 8, 3), torch.zeros(1, 3, 3, dtype=torch.uint8)):
        assert loaded(SamplesData(lambda x=x: Pairs(lambda number: (x, number % 2)))).shape == x.shape


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"y": torch.zeros(50)}, "target y has 50 entries, and there are 60 samples: give one entry for each"),
        ({"y": torch.tensor(1)}, "target y has one number, and there are 60 samples"),
        ({"y": list(range(60))}, "target y must be a tensor, got a list"),
        ({"weight": torch.ones(61)}, "weight has 61 entries, and there are 60 samples"),
        ({"groups": torch.arange(6)}, "groups has 6 entries, and there are 60 samples"),
        ({"x": {"a": torch.zeros(60, 2), "b": torch.zeros(59)}}, "input b has 59 entries, and there are 60 samples"),
        ({"x": torch.zeros(60, 9, 8, 3, dtype=torch.uint8)}, "9 × 8 bytes have their 3 channels last"),
        ({"y": torch.full((60, 2), torch.inf)}, "target y is NaN or infinite in 60 of 60 samples, such as number 0"),
        ({"y": None}, "has no target: give a dict"),
    ],
)
@pytest.mark.parametrize("in_test", [False, True])
def test_samples_that_do_not_fit_together_are_refused(split, said, in_test):
    def made(x=None, y=(), **beside):
        x = torch.rand(60, 2) if x is None else x
        return Split(x, {} if y is None else {"": torch.arange(60) % 3 if isinstance(y, tuple) else y}, **beside)

    class Own(Data):
        def load(self):
            return (made(), made(**split)) if in_test else (made(**split), None)

    with pytest.raises(RecipeError, match=rf"^Own.load\(\)(:| has) .*{said.removeprefix('has ')}") as error:
        loaded(Own())
    assert "\n" not in str(error.value)


def test_a_source_that_fails_on_the_way():
    places = [torch.arange(3)]
    assert next(fetched(Rows(0), places, torch.device("cpu")))[0].shape == (3, 3)
    with pytest.raises(RecipeError, match=r"samples cannot be fetched: test_own.py, line \d+: IndexError"):
        next(fetched(Rows(1), places, torch.device("cpu")))


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(2), 0


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (DataLoader(Stream(), batch_size=2), "whose samples cannot be reached by their number"),
        (tensors(20, 0, sampler=WeightedRandomSampler([1.0] * 20, 20)), "by a WeightedRandomSampler"),
        ([tensors(20, 0), tensors(20, 1)], "expected one DataLoader, got a list"),
        ({"a": tensors(20, 0)}, "expected one DataLoader, got a dict"),
        (None, "has no train_dataloader"),
    ],
)
def test_loaders_that_are_refused(loader, said):
    with pytest.raises(RecipeError, match=said):
        loaded(LoadersData(module(train_dataloader=loader)))


def test_hooks_that_nobody_would_call_are_refused():
    kind = module(train_dataloader=tensors(20, 0))
    kind.on_after_batch_transfer = lambda self, batch, index: batch
    with pytest.raises(RecipeError, match="defines on_after_batch_transfer, which is not called here"):
        loaded(LoadersData(kind))


def test_batches_of_its_own_are_refused():
    class Own(BatchSampler):
        pass

    data = TensorDataset(torch.zeros(20, 2), torch.arange(20) % 2)
    loader = DataLoader(data, batch_sampler=Own(SequentialSampler(data), 5, False))
    with pytest.raises(RecipeError, match="by a Own"):
        loaded(LoadersData(module(train_dataloader=loader)))


DRAWN = {
    "torch": lambda: torch.randperm(60).tolist(),
    "numpy": lambda: np.random.permutation(60).tolist(),
    "python": lambda: random.sample(range(60), 60),
}


def states():
    return torch.get_rng_state().tolist(), random.getstate(), pickle.dumps(np.random.get_state())


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_split_that_is_drawn_is_one_in_every_stage_and_process(draw):
    whole = TensorDataset(torch.arange(60.0).unsqueeze(1), torch.arange(60) % 3)

    class Drawn(L.LightningDataModule):
        def __init__(self):
            super().__init__()
            draw()

        def setup(self, stage):
            order = draw()
            self.parts = [Subset(whole, rows) for rows in (order[:30], order[30:40], order[40:])]

        def train_dataloader(self):
            draw()
            return DataLoader(self.parts[0], batch_size=10)

        def val_dataloader(self):
            return DataLoader(self.parts[1])

        def test_dataloader(self):
            return DataLoader(self.parts[2])

    found = []
    for _ in range(2):
        draw()
        before = states()
        found.append(loaded(LoadersData(Drawn)))
        assert states() == before
    assert found[0].fingerprint == found[1].fingerprint != loaded(LoadersData(Drawn, split_seed=1)).fingerprint
    values = [split.fetch(torch.arange(len(split)))[0].flatten().tolist() for split in found[0].splits.values()]
    assert list(map(len, values)) == [30, 10, 20] and sorted(chain(*values)) == list(range(60))


class Noise(Data):
    def load(self):
        return Split(torch.rand(60, 3), {"": torch.arange(60) % 3}), None


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_samples_that_are_drawn_are_the_same_in_every_process(draw):
    def data(**split):
        return SamplesData(lambda: TensorDataset(torch.tensor(draw()).float().unsqueeze(1), torch.arange(60) % 3), **split)

    for make in (data, Noise):
        assert loaded(make()).fingerprint == loaded(make()).fingerprint
        assert loaded(make()).content != loaded(make(split_seed=1)).content


def test_test_samples_that_are_trained_on_are_refused():
    def load(train, test):
        return loaded(LoadersData(module(train_dataloader=DataLoader(train), test_dataloader=DataLoader(test))))

    whole = tensors(40, 0).dataset
    x, y = whole.tensors
    said = "Mod: 10 of the 10 samples of test_dataloader are trained on or validated with: give it samples of its own"
    with pytest.raises(RecipeError, match=said) as error:
        load(whole, Subset(whole, range(30, 40)))
    assert "\n" not in str(error.value)
    assert len(load(whole, TensorDataset(x[:10], (y[:10] + 1) % 3)).splits["test"]) == 10  # the same places, measured anew
    x_once, y_once = tensors(199, 0).dataset.tensors
    one_twice = TensorDataset(torch.cat([x_once, x_once[:1]]), torch.cat([y_once, y_once[:1]]))
    with pytest.raises(RecipeError, match="40 of the 40 samples of test_dataloader are trained on"):
        load(one_twice, Subset(one_twice, range(40)))
    few = TensorDataset((x > 0).float(), y)  # values that repeat themselves
    assert len(load(few, Subset(few, range(10))).splits["test"]) == 10
