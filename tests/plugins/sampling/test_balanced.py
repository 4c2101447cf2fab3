import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from plugins.base import Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task, derive_seed
from plugins.sampling.balanced import BalancedSampling, balanced_order
from recipes.data.loaders import StepLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule
from tests.harness import config_of, fit, parameters, same_bits
from tests.ranks import on_ranks

COUNTS = (211, 40, 7, 1)


def rare(counts=COUNTS):
    """Labels of classes that are not equally frequent."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return labels[torch.randperm(len(labels))]


def draw(labels, seed=0):
    return balanced_order(labels, torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ the order


def test_each_class_stands_equally_often_and_each_of_its_samples():
    labels = rare()
    order = draw(labels)
    assert len(order) == len(labels)
    for stretch in (len(order), 100, 33, 4, 3):  # from the front: an epoch leaves out what fills no step
        counts = torch.bincount(labels[order[:stretch]], minlength=len(COUNTS))
        assert counts.max() - counts.min() <= 1
    times = torch.bincount(order, minlength=len(labels))
    for label in range(len(COUNTS)):
        of_class = times[labels == label]
        assert of_class.max() - of_class.min() <= 1


def test_it_is_expected_as_often_as_by_a_weighted_sampler():
    labels = rare()
    weights = (1.0 / torch.bincount(labels))[labels]
    epochs, samples = 400, len(labels)
    ours, torchs = torch.zeros(samples), torch.zeros(samples)
    for epoch in range(epochs):
        ours += torch.bincount(draw(labels, epoch), minlength=samples)
        drawn = list(WeightedRandomSampler(weights.tolist(), samples, generator=torch.Generator().manual_seed(epoch)))
        torchs += torch.bincount(torch.tensor(drawn), minlength=samples)
    expected = epochs * samples * weights / weights.sum()
    for found in (ours, torchs):  # a count of n has a deviation of √n
        assert ((found - expected).abs() < 5 * expected.sqrt()).all()
        of_class = torch.zeros(len(COUNTS)).index_add_(0, labels, found)
        torch.testing.assert_close(of_class / of_class.sum(), torch.full((len(COUNTS),), 0.25), atol=0.01, rtol=0)
    assert (ours - expected).square().sum() < (torchs - expected).square().sum()


def test_labels_need_not_be_consecutive_and_may_be_truth_values():
    labels = torch.tensor([7, 7, 7, 7, 2, 2])
    assert sorted(labels[draw(labels)].tolist()) == [2, 2, 2, 7, 7, 7]
    setting = Setting((1,), (Task("", "classification", 2),))
    plugin = BalancedSampling()
    plugin.prepare(setting)
    truth = torch.tensor([[True], [False], [False], [False]])
    order = plugin.order({"": truth}, 0, torch.Generator())
    assert truth[order].sum() == 2


# ------------------------------------------------------------------ in training


class Seen(Plugin):
    """Keeps the labels and the numbers of the samples of each step."""

    stage = Stage.DIAGNOSTICS

    def __init__(self):
        self.steps = []

    def transform_batch(self, batch, module):
        self.steps.append((batch.x[:, 0].int().tolist(), batch.labels[""].tolist()))
        return batch


def trained(make_trainer, steps, split, *plugins, batch_size=8, loader=None, when=None, **arguments):
    module = RecipeModule(
        torch.nn.Linear(1, len(COUNTS)), torch.nn.CrossEntropyLoss(), lambda groups: torch.optim.SGD(groups, 0.0)
    )
    seen, sampling = Seen(), BalancedSampling()
    if when:
        sampling.when = when
    loader = loader or StepLoader(split, batch_size, 0, **arguments)
    make_trainer(max_steps=steps, callbacks=[seen, sampling, *plugins]).fit(module, loader)
    return seen.steps


def numbered(labels):
    return Split(torch.arange(float(len(labels))).view(-1, 1), {"": labels})


def test_an_epoch_of_training_has_each_class_as_often(make_trainer):
    labels = rare()
    steps = len(labels) // 8
    seen = trained(make_trainer, 2 * steps, numbered(labels))
    assert len(seen) == 2 * steps
    for epoch in (seen[:steps], seen[steps:]):
        counts = torch.bincount(torch.tensor([label for _, found in epoch for label in found]))
        assert counts.tolist() == [2 * steps] * 4
        assert all(labels[numbers].tolist() == found for numbers, found in epoch)
    assert seen[:steps] != seen[steps:]


def test_the_full_batch_and_a_share_of_training(make_trainer):
    labels = rare()
    ((numbers, found),) = trained(make_trainer, 1, numbered(labels), batch_size="full")
    assert len(numbers) == len(labels) and max(map(found.count, range(4))) - min(map(found.count, range(4))) <= 1
    steps = len(labels) // 8
    seen = trained(make_trainer, 2 * steps, numbered(labels), when=(0.5, 1.0))
    assert len({number for numbers, _ in seen[:steps] for number in numbers}) == 8 * steps  # none twice
    assert len({number for numbers, _ in seen[steps:] for number in numbers}) < 7 * steps


def test_a_loader_with_an_order_of_its_own_is_refused(make_trainer):
    labels = rare()
    other = DataLoader(TensorDataset(torch.randn(len(labels), 1), labels), 8, shuffle=True)
    with pytest.raises(
        RecipeError, match="sampling/balanced gives the order of the samples, and a DataLoader has one of its own"
    ):
        trained(make_trainer, 1, None, loader=other)


def test_a_run_without_it_has_its_order_back(make_trainer):
    """The loader is the same, and the technique of another module is none of this one's."""
    split = numbered(rare())
    loader = StepLoader(split, 8, 0)
    trained(make_trainer, 1, split, loader=loader)
    assert loader.sampling is not None
    module = RecipeModule(torch.nn.Linear(1, 4), torch.nn.CrossEntropyLoss(), lambda groups: torch.optim.SGD(groups, 0.0))
    make_trainer(max_steps=1).fit(module, loader)
    assert loader.sampling is None and torch.equal(loader.order(0), StepLoader(split, 8, 0).order(0))


def test_it_goes_on_in_the_middle_of_an_epoch(tmp_path):
    config = config_of(["sampling/balanced", "augmentation/horizontal_flip"])
    whole = fit(config, tmp_path / "whole", 100, copy_at=93)  # 80 steps or so make an epoch
    assert 93 % whole.trainer.num_training_batches
    resumed = fit(config, tmp_path / "resumed", 100, resume=tmp_path / "whole" / "copy.ckpt")
    assert not same_bits(parameters(whole), parameters(resumed))
    assert same_bits(parameters(whole), parameters(fit(config_of(["augmentation/horizontal_flip"]), tmp_path / "plain", 100)))


def order_of_rank(labels, epoch):
    loader = StepLoader(numbered(labels), 8, 3, world=2)
    loader.sampling = BalancedSampling()
    loader.sampling.prepare(Setting((1,), (Task("", "classification", 4),)))
    return loader.order(epoch)


def test_two_processes_share_the_order_of_one():
    labels = rare()
    first, second = on_ranks(2, order_of_rank, labels, 5)
    one = StepLoader(numbered(labels), 4, 3, parts=2)
    one.sampling = BalancedSampling()
    one.sampling.prepare(Setting((1,), (Task("", "classification", 4),)))
    assert torch.equal(torch.cat([first, second], dim=1), one.order(5))
    generator = torch.Generator().manual_seed(derive_seed(3, "sampling/balanced", "order", 5))
    assert torch.equal(one.order(5).flatten(), balanced_order(labels, generator)[: one.order(5).numel()])


# ------------------------------------------------------------------ refused


CLASSES, OTHERS, NUMBER = (
    Task("digit", "classification", 3),
    Task("speaker", "classification", 2),
    Task("size", "regression", 1),
)


@pytest.mark.parametrize(
    ("tasks", "target", "message"),
    [
        ([NUMBER], None, "the data has no classes: leave it out"),
        ([CLASSES, OTHERS], None, "the data has digit, speaker: type sampling.target=digit"),
        ([CLASSES, NUMBER], "size", "must be one of the targets with classes, 'digit', got 'size'"),
        ([CLASSES], "colour", "must be one of the targets with classes, 'digit', got 'colour'"),
    ],
)
def test_what_has_no_classes_to_balance_is_refused(tasks, target, message):
    with pytest.raises(Refusal, match=message) as told:
        BalancedSampling(target).check(Selection([], Setting((1,), tuple(tasks))))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("tasks", "target"), [([CLASSES, NUMBER], None), ([CLASSES, OTHERS], "speaker")])
def test_of_several_targets_the_one_that_is_meant_counts(tasks, target):
    plugin = BalancedSampling(target)
    setting = Setting((1,), tuple(tasks))
    plugin.check(Selection([], setting))
    plugin.prepare(setting)
    labels = {"digit": rare(), "speaker": rare((250, 9)), "size": torch.randn(259)}
    counts = torch.bincount(labels[target or "digit"][plugin.order(labels, 0, torch.Generator())])
    assert counts.max() - counts.min() <= 1


class Wrong(Plugin):
    stage = Stage.SAMPLING

    def __init__(self, answer):
        self.answer = answer

    def order(self, labels, epoch, generator):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.arange(11), "order must give 12 whole numbers, as many as there are samples, got torch.int64 of shape"),
        (torch.arange(12.0), "order must give 12 whole numbers"),
        (torch.arange(12) + 1, "order must give numbers from 0 to 11, got 1 to 12"),
    ],
)
def test_an_order_that_is_none_is_told(answer, message):
    loader = StepLoader(numbered(torch.arange(12) % 4), 4, 0)
    loader.sampling = Wrong(answer)
    with pytest.raises(RecipeError, match=message):
        loader.order(0)


def test_labels_that_are_ignored_are_left_out_of_the_rounds():
    labels = torch.tensor([0, 0, 0, 0, 1, -100, -100, 255])
    plugin = BalancedSampling()
    plugin.prepare(Setting((1,), (Task("", "classification", 2),)))
    order = plugin.order({"": labels}, 0, torch.Generator())
    assert torch.bincount(labels[order]).tolist() == [4, 4]
    with pytest.raises(RecipeError, match="sampling/balanced draws each class as often, and no training sample has one"):
        plugin.order({"": labels[5:]}, 0, torch.Generator())


def test_a_class_that_the_loss_ignores_is_none():
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    plugin = BalancedSampling()
    module = RecipeModule(nn.Linear(1, 3), nn.CrossEntropyLoss(ignore_index=2), torch.optim.SGD)
    module.build([plugin], Setting((1,), (Task("", "classification", 3),)), precision="32-true", devices=1)
    order = plugin.order({"": labels}, 0, torch.Generator())
    assert torch.bincount(labels[order]).tolist() == [4, 4]
