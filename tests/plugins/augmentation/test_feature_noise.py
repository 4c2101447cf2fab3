import torch
from scipy import stats

from plugins.augmentation.feature_noise import FeatureNoise
from plugins.base import Batch, Setting, Task
from recipes.engine.module import RecipeModule


def built(plugin, x, pieces=3):
    """The engine's module for training rows that come in pieces."""
    module = RecipeModule(torch.nn.Flatten(), torch.nn.functional.cross_entropy, lambda p: torch.optim.SGD(p, 0.1))
    module.build(
        [plugin], Setting(tuple(x.shape[1:]), (Task("", "classification", 2),), 0, lambda: iter(x.chunk(pieces))), devices=1
    )
    return module


def test_each_number_has_noise_in_proportion_to_the_deviation_of_its_feature():
    x = torch.randn(4000, 4) * torch.tensor([1e-3, 1.0, 50.0, 1e4]) + torch.tensor([0.0, 5.0, 1e3, -1e4])
    x[:, 1] = (x[:, 1] > 5).float()  # a category
    plugin, y, before = FeatureNoise(0.3), {"": torch.zeros(4000)}, x.clone()
    out = plugin.transform_batch(Batch(x, y, y), built(plugin, x)).x
    assert torch.equal(out[:, 1], x[:, 1]) and torch.equal(x, before)
    for column in (0, 2, 3):
        noise = (out[:, column] - x[:, column]).double() / (0.3 * x[:, column].double().std(correction=0))
        assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-6 and len(noise.unique()) > 3000


def test_images_stay_where_they_were():
    x, plugin = torch.rand(60, 3, 4, 4), FeatureNoise(2.0)
    out = plugin.transform_batch(Batch(x, {}, {}), built(plugin, x)).x
    assert out.shape == x.shape and out.min() == 0 and out.max() == 1


def test_training_inputs_are_read_before_the_first_step():
    x, passes = torch.rand(60, 3, 4, 4), []
    plugin, y = FeatureNoise(0.1), {"": torch.zeros(60)}
    setting = Setting((3, 4, 4), (Task("", "classification", 2),), 0, lambda: passes.append(0) or iter([x]))
    module = RecipeModule(torch.nn.Flatten(), torch.nn.functional.cross_entropy, lambda p: torch.optim.SGD(p, 0.1))
    module.build([plugin], setting, devices=1)
    before = len(passes)
    out = plugin.transform_batch(Batch(x, y, y), module).x
    assert len(passes) == before > 0 and out.min() >= 0 and out.max() <= 1
