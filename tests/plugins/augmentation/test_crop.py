import copy
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation.crop import RandomCrop, crop
from plugins.augmentation.feature_noise import FeatureNoise
from plugins.augmentation.swap_noise import SwapNoise
from plugins.base import Refusal, Setting, Task
from plugins.normalization.instance import InstanceNormalization
from plugins.preprocessing.minmax import MinMaxInputs
from plugins.preprocessing.width import WidthInputs
from recipes.engine.module import RecipeModule
from tests.plugins.distillation.test_features import Teacher, taught


@pytest.mark.parametrize(("padding", "height", "width"), [(2, 8, 10), (0, 5, 5), (3, 6, 6), (1, 10, 12), (0, 8, 10)])
def test_copies_the_pixels_of_each_window(padding, height, width):
    x = torch.rand(20, 3, 8, 10)
    top, left = torch.randint(8 + 2 * padding - height + 1, (20,)), torch.randint(10 + 2 * padding - width + 1, (20,))
    out = crop(x, top, left, padding, height, width)
    assert out.shape == (20, 3, height, width)
    for image, result, row, column in zip(x, out, top.tolist(), left.tolist(), strict=True):
        padded = torch.zeros(3, 8 + 2 * padding, 10 + 2 * padding)
        padded[:, padding : padding + 8, padding : padding + 10] = image
        assert torch.equal(result, padded[:, row : row + height, column : column + width])


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given, generator = RandomCrop(padding=8), batch(256), drawn("crop")
    out = plugin.transform_batch(given, build(plugin)).x
    places = torch.stack([torch.randint(17, (256,), generator=generator) for _ in range(2)], 1)
    assert len(places.unique(dim=0)) > 150
    for image, result, (top, left) in zip(given.x, out, places.tolist(), strict=True):
        assert torch.equal(result, torchvisions.crop(torchvisions.pad(image, [8]), top, left, 8, 10))


def test_a_view_of_the_data_set_is_cropped_and_left_alone():
    data = torch.rand(50, 8, 10, 3)
    x = data[10:30].permute(0, 3, 1, 2)
    before, corner = data.clone(), torch.full((20,), 2)
    assert torch.equal(crop(x, corner, corner, 2, 8, 10), x)
    assert torch.equal(data, before)


def test_every_place_is_drawn_for_each_sample_alike(build, batch):
    plugin = RandomCrop(padding=1)
    ramp = torch.arange(1.0, 81).view(1, 1, 8, 10).expand(3600, 3, 8, 10)
    out = plugin.transform_batch(batch(3600), build(plugin)).x
    assert out.shape == (3600, 3, 8, 10)
    given = batch(3600)
    given.x = ramp
    middle = plugin.transform_batch(given, build(plugin)).x[:, 0, 4, 5]
    values, counts = middle.unique(return_counts=True)
    assert len(values) == 9
    assert (counts - 400).abs().max() < 6 * 400**0.5


def test_refuses_a_window_larger_than_the_image(build):
    with pytest.raises(Refusal, match="cannot cut 13 pixels out of an image of 12.*raise crop.padding"):
        build(RandomCrop(padding=2, size=13))


def _fit(model, plugin):
    data = DataLoader(TensorDataset(torch.rand(8, 3, 8, 8), torch.randint(5, (8,))), batch_size=4)
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L.Trainer(accelerator="cpu", max_steps=2, callbacks=[plugin], **quiet).fit(module, data, data)


def test_a_smaller_window_trains_a_model_that_pools_and_is_refused_by_one_that_cannot():
    sizes = []
    pooling = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    pooling.register_forward_pre_hook(lambda model, inputs: sizes.append((model.training, inputs[0].shape[-1])))
    _fit(pooling, RandomCrop(padding=0, size=6))
    assert (True, 6) in sizes and (True, 8) not in sizes  # training sees windows,
    assert (False, 8) in sizes  # evaluation whole images
    with pytest.raises(
        Refusal, match="Sequential takes none of 6 × 6: type model=resnet18, or leave augmentation.crop.size out"
    ):
        _fit(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), RandomCrop(padding=0, size=6))


class Pooling(nn.Sequential):
    def __init__(self, *more):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), *more, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


class Patches(Pooling):
    """Of one size, as vision transformers are, and says so as they do."""

    def forward(self, x):
        torch._assert(x.shape[-1] == 8, "Wrong image height!")
        return super().forward(x)


def built(*plugins, model=None):
    """The plugins in a module that trains on 12 images."""
    x, task = torch.rand(12, 3, 8, 8), Task("", "classification", 5)
    module = RecipeModule(model or Pooling(), nn.functional.cross_entropy, torch.optim.SGD)
    module.build(plugins, Setting((3, 8, 8), (task,), training_inputs=lambda: iter([x])), devices=1)


@pytest.mark.parametrize(
    ("beside", "model", "message"),
    [
        ([], Patches(), "several sizes, and Patches takes none of 6 × 6: type model=resnet18"),
        (
            [InstanceNormalization()],
            Pooling(nn.AvgPool2d(3), nn.BatchNorm2d(4)),
            "Pooling with normalization/instance takes none of 6 × 6",
        ),
        ([MinMaxInputs()], None, "6 × 6, which preprocessing/minmax does not take: type preprocessing=standardize, or"),
        ([WidthInputs(5)], None, "6 × 6, which preprocessing/width does not take: type preprocessing=standardize, or"),
        (
            [FeatureNoise()],
            None,
            "augmentation/feature_noise knows each number .* by its place: leave augmentation.crop.size out",
        ),
        ([SwapNoise()], None, "augmentation/swap_noise knows each number .* by its place: leave augmentation.crop.size out"),
        ([taught(Teacher(Patches(), (3, 8, 8)))], None, "the teacher of distillation/features takes none of that size: type"),
    ],
    ids=["model", "normalization", "minmax", "width", "feature_noise", "swap_noise", "teacher"],
)
def test_what_knows_one_size_is_refused_beside_a_window_of_another(beside, model, message):
    plain = copy.deepcopy((beside, model))
    built(RandomCrop(padding=0, size=8), *plain[0], model=plain[1])
    with pytest.raises(Refusal, match=message):
        built(RandomCrop(padding=0, size=6), *beside, model=model)


def test_a_teacher_that_pools_is_asked_for_windows():
    built(RandomCrop(padding=0, size=6), taught(Teacher(Pooling(), (3, 8, 8))))
