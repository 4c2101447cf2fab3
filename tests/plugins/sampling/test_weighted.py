import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.sampling._drawing import systematic
from plugins.sampling.weighted import WeightedSampling, weights_of_samples
from tests.harness import config_of, fit, parameters, same_bits
from tests.plugins.sampling.test_balanced import CLASSES, NUMBER, rare


def drawn(expected, seed=0):
    return torch.bincount(systematic(expected, torch.Generator().manual_seed(seed)), minlength=len(expected))


def test_each_sample_is_drawn_as_often_as_expected_up_to_one():
    expected = torch.rand(300) ** 4
    expected[::7] = 0
    exact = 300 * expected.double() / expected.double().sum()
    total, draws = torch.zeros(300, dtype=torch.float64), 300
    for seed in range(draws):
        counts = drawn(expected, seed)
        assert counts.sum() == 300 and (counts >= exact.floor()).all() and (counts <= exact.ceil()).all()
        total += counts
    share = exact - exact.floor()
    deviation = (draws * share * (1 - share)).sqrt()  # of a count that is one or the other
    assert ((total - draws * exact).abs() <= 5 * deviation + 4).all()  # a few that are hardly ever drawn
    assert drawn(torch.ones(40)).tolist() == [1] * 40
    assert drawn(torch.tensor([0.0, 1e-30, 0.0])).tolist() == [0, 3, 0]


def test_the_order_is_random_and_a_function_of_the_generator():
    orders = [systematic(torch.ones(200), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(*orders[:2]) and not torch.equal(*orders[1:])
    assert (orders[0].float() - torch.arange(200)).abs().mean() > 40


def test_it_is_expected_as_often_as_by_torchs_sampler():
    labels, weights, epochs = rare(), [0.5, 2.0, 8.0, 0.0], 300
    of_samples = weights_of_samples(labels, weights)
    plugin = WeightedSampling(weights)
    plugin.prepare(Setting((1,), (Task("", "classification", 4),)))
    ours, torchs = torch.zeros(4), torch.zeros(4)
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(epoch)
        ours += torch.bincount(labels[plugin.order({"": labels}, epoch, generator)], minlength=4)
        torchs += torch.bincount(labels[list(WeightedRandomSampler(of_samples, len(labels), generator=generator))], minlength=4)
    assert ours[3] == torchs[3] == 0
    torch.testing.assert_close(ours / ours.sum(), torchs / torchs.sum(), atol=0.01, rtol=0)


def test_the_square_root_lies_between_the_datas_shares_and_equal_ones():
    labels = rare()
    plugin = WeightedSampling()
    plugin.prepare(Setting((1,), (Task("", "classification", 4),)))
    counts = torch.bincount(labels[plugin.order({"": labels}, 0, torch.Generator())])
    of_classes = torch.bincount(labels)
    exact = of_classes.double().sqrt()
    exact *= len(labels) / exact.sum()
    over = (exact / of_classes).frac()  # a sample of it is drawn once more with this probability
    assert ((counts - exact).abs() <= 1 + 6 * (of_classes * over * (1 - over)).sqrt()).all()
    assert counts[0] < of_classes[0] - 20 and (counts[1:] > of_classes[1:] + 5).all()


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, float("inf")], "balanced", 2, [True, 1]])
def test_refuses_what_are_no_weights(weights):
    with pytest.raises(RecipeError, match="^weights must be square_root, or a list of finite weights"):
        WeightedSampling(weights)


def test_refuses_other_data():
    with pytest.raises(Refusal, match="sampling/weighted draws by class, and the data has no classes: leave it out"):
        WeightedSampling().check(Selection([], Setting((1,), (NUMBER,))))
    with pytest.raises(Refusal, match="a weight for each of the 3 classes of digit, got 2: type as many"):
        WeightedSampling([1, 2]).check(Selection([], Setting((1,), (CLASSES,))))
    plugin = WeightedSampling([0, 0, 1])
    plugin.prepare(Setting((1,), (CLASSES,)))
    with pytest.raises(RecipeError, match=r"sampling.weights=\[0, 0, 1\]: no training sample is in a class that has a weight"):
        plugin.order({"digit": torch.tensor([0, 1, 0, -100])}, 0, torch.Generator())


def test_it_goes_on_in_the_middle_of_an_epoch(tmp_path):
    config = config_of(["sampling/weighted"], "data.batch_size=128")
    whole = fit(config, tmp_path / "whole", 15, copy_at=13)  # 10 steps make an epoch
    resumed = fit(config, tmp_path / "resumed", 15, resume=tmp_path / "whole" / "copy.ckpt")
    assert not same_bits(parameters(whole), parameters(resumed))


def test_labels_that_are_ignored_are_not_drawn():
    labels = torch.tensor([0, 0, 0, 0, 1, -100, -100, 255])
    plugin = WeightedSampling()
    plugin.prepare(Setting((1,), (Task("", "classification", 2),)))
    order = plugin.order({"": labels}, 0, torch.Generator())
    assert len(order) == 8 and set(labels[order].tolist()) == {0, 1}
    torch.testing.assert_close(
        weights_of_samples(labels, "square_root", (labels >= 0) & (labels < 2)),
        torch.tensor([0.5] * 4 + [1.0] + [0.0] * 3).double(),
    )
