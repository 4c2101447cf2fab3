import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal, Selection, Setting
from plugins.inputs import Entry
from plugins.norm_statistics import measured_norms, measuring
from plugins.normalization.batch import BatchNormalization
from plugins.normalization.ghost_batch import GhostBatchNorm, GhostBatchNormalization
from recipes.models.fcn import FCN
from tests.plugins.normalization.placing import convolutional, expect_reloads, hosts, normalized, norms, perceptron


@pytest.mark.parametrize("places", [(), (5,), (3, 4)])
def test_each_part_is_normalized_by_itself_and_statistics_take_in_one_after_the_other(places):
    """As pytorch-tabnet's GBN, whose parts are those of a batch norm layer called once for each."""
    x, axes = 2 + 3 * torch.randn(12, 6, *places), (0, *range(2, 2 + len(places)))
    layer = GhostBatchNorm(6, 4)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    one = (1, -1, *(1 for _ in places))
    mean, variance, expected = torch.zeros(6), torch.ones(6), []
    for part in x.split(4):
        mu, sigma = part.mean(axes, keepdim=True), part.var(axes, correction=0, keepdim=True)
        expected.append(layer.weight.view(one) * (part - mu) / (sigma + 1e-5).sqrt() + layer.bias.view(one))
        mean, variance = 0.9 * mean + 0.1 * part.mean(axes), 0.9 * variance + 0.1 * part.var(axes)
    torch.testing.assert_close(layer(x), torch.cat(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, variance)
    assert layer.num_batches_tracked == 3
    at_test = (x - mean.view(one)) / (variance.view(one) + 1e-5).sqrt() * layer.weight.view(one) + layer.bias.view(one)
    torch.testing.assert_close(layer.eval()(x), at_test, rtol=1e-4, atol=1e-5)
    assert layer.num_batches_tracked == 3


@pytest.mark.parametrize(("samples", "sizes"), [(16, [8, 8]), (19, [10, 9]), (7, [7]), (24, [8, 8, 8])])
def test_no_part_is_smaller_than_asked(samples, sizes):
    x, layer = torch.randn(samples, 3), GhostBatchNorm(3, 8)
    parts = [(part - part.mean(0)) / (part.var(0, correction=0) + 1e-5).sqrt() for part in x.split(sizes)]
    torch.testing.assert_close(layer(x), torch.cat(parts))


def test_of_the_whole_batch_it_is_batch_norm():
    ghost, batch, x = GhostBatchNorm(6, 10), nn.BatchNorm1d(6), torch.randn(10, 6)
    assert torch.equal(ghost(x), batch(x)) and torch.equal(ghost.running_var, batch.running_var)
    assert ghost.state_dict().keys() == batch.state_dict().keys()


def test_it_stands_where_batch_norm_does():
    ghost, batch = (
        normalized(plugin, convolutional(), (3, 6, 6)) for plugin in (GhostBatchNormalization(4), BatchNormalization())
    )
    assert hosts(ghost) == hosts(batch) == ["0", "6"] and norms(ghost).keys() == norms(batch).keys()
    assert all(type(norm) is GhostBatchNorm and norm.size == 4 for norm in norms(ghost).values())
    expect_reloads(GhostBatchNormalization(), convolutional, (3, 6, 6), torch.randn(8, 3, 6, 6))


def test_statistics_of_averaged_weights_are_measured_anew():
    model, x = nn.Sequential(GhostBatchNorm(4, 5)), 3 + 2 * torch.randn(20, 4)
    with measuring(measured_norms(model.eval())):
        model(x[:10])
        model(x[10:])
    torch.testing.assert_close(model[0].running_mean, x.mean(0))


def test_processes_are_not_joined():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(GhostBatchNorm(4, 5)))
    assert type(model[0]) is GhostBatchNorm


@pytest.mark.parametrize("kind", [BatchNormalization, GhostBatchNormalization])
def test_one_sample_is_normalized_over_its_places_and_refused_where_there_are_none(kind):
    plugin = kind()
    plugin.check(Selection([plugin], Setting((1, 6, 6), ()), devices=2, batch_size=3))
    model = normalized(plugin, FCN((1, 6, 6), 3, [4]), (1, 6, 6))
    assert hosts(model) == ["0"]
    h = model[0](2 + 3 * torch.randn(1, 1, 6, 6))
    torch.testing.assert_close(h.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(h.var((0, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)
    with pytest.raises(
        Refusal, match=f"{kind.__module__.split('.')[-1]} cannot be combined with one sample .* data.batch_size=4"
    ):
        normalized(plugin, perceptron(), (5,))
    with pytest.raises(Refusal, match="one sample a forward pass"):
        normalized(plugin, FCN((1, 1, 1), 3, [4]), (1, 1, 1))
    plugin.check(Selection([plugin], Setting((5,), ()), devices=2, batch_size=4))
    normalized(plugin, perceptron(), (5,))


def test_refuses():
    with pytest.raises(RecipeError, match="^size must be a whole number ≥ 2, got 1"):
        GhostBatchNormalization(1)
    plugin = GhostBatchNormalization()
    with pytest.raises(Refusal, match="normalization/ghost_batch would take statistics over all places"):
        plugin.check(Selection([plugin], Setting({"steps": Entry((4, 3), "float32")}, ())))
