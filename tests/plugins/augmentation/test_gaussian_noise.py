import torch
from scipy import stats

from plugins.augmentation.gaussian_noise import GaussianNoise, add_noise
from plugins.base import Batch, Setting, Task


def setting_of(x):
    return Setting(tuple(x.shape[1:]), (Task("", "classification", 5),), 0, lambda: iter([x]))


def noisy(x, plugin, build):
    module = build(plugin, shape=tuple(x.shape[1:]))
    plugin.prepare(setting_of(x))
    labels = torch.zeros(len(x), dtype=torch.long)
    return plugin.transform_batch(Batch(x, {"": labels}, {"": labels}), module).x


def test_the_noise_is_normal_and_of_each_number(build, drawn):
    x = 8 * torch.rand(256, 3, 8, 10) - 4
    out = noisy(x, GaussianNoise(std=0.3), build)
    assert torch.equal(out, x + 0.3 * torch.randn(256, 3, 8, 10, generator=drawn("gaussian_noise")))
    noise = (out - x) / 0.3
    assert len(noise.flatten(1)[:, :4].unique(dim=0)) == 256
    assert stats.kstest(noise.flatten()[::7].numpy(), "norm").pvalue > 1e-6


def test_images_from_0_to_1_stay_there_and_others_are_not_cut_off(build):
    x = torch.rand(40, 3, 8, 10)
    out = noisy(x, GaussianNoise(std=0.5), build)
    assert out.min() == 0 and out.max() == 1
    free = noisy(x * 3, GaussianNoise(std=0.5), build)
    assert free.min() < 0 and free.max() > 3
    noise = torch.randn(40, 3, 8, 10)
    assert torch.equal(add_noise(x, noise, 0.5, (0.0, 1.0)), (x + 0.5 * noise).clamp(0, 1))
