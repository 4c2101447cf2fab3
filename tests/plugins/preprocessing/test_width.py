import pytest
import torch
from torch import nn

from plugins.augmentation.crop import RandomCrop
from plugins.augmentation.cutout import Cutout
from plugins.augmentation.gaussian_noise import GaussianNoise
from plugins.augmentation.grayscale import Grayscale
from plugins.augmentation.rotate import Rotate
from plugins.augmentation.solarize import Solarize
from plugins.augmentation.three_augment import ThreeAugment
from plugins.augmentation.trivial_augment import TrivialAugment
from plugins.base import Refusal, Selection, Setting, Task, check_selection
from plugins.inputs import Entry
from plugins.preprocessing.width import WidthInputs
from tests.plugins.preprocessing.fitting import fitted


def drawings(samples, channels=1, size=28):
    """Images with something drawn between two columns, and what these are."""
    x = torch.zeros(samples, channels, size, size)
    boxes = []
    for image in x:
        first = int(torch.randint(1, size - 6, ()))
        last = int(torch.randint(first, size - 1, ()))
        image[:, 3:-4, first : last + 1] = 0.3 + 0.7 * torch.rand(channels, size - 7, last + 1 - first)
        boxes.append((first, last))
    return x, boxes


@pytest.mark.parametrize("width", [10, 13, 20, 28])
@pytest.mark.parametrize("dark", [True, False])
def test_equals_the_cropped_box_resized_by_torch(width, dark):
    x, boxes = drawings(12, channels=2)
    x = x if dark else 1 - x
    layer = fitted(WidthInputs(width), x)
    back = layer.background.view(1, -1, 1, 1)
    found = layer(x)
    for image, (first, last), result in zip(x, boxes, found, strict=True):
        crop = image[None, ..., first : last + 1]
        inner = nn.functional.interpolate(crop, (28, width), mode="bilinear", antialias=True)
        expected = back.expand(1, 2, 28, 28).clone()
        start = (28 - width) // 2
        expected[..., start : start + width] = inner
        torch.testing.assert_close(result, expected[0], rtol=1e-4, atol=1e-5)


def test_by_default_five_sevenths_of_the_image_as_mnists():
    x, _ = drawings(10)
    columns = fitted(WidthInputs(), x)(x).amax((0, 1, 2)) > 0.05
    assert columns.sum() == 20 and columns[4:24].all()
    assert fitted(WidthInputs(), drawings(10, size=8)[0]).width == 6


def test_the_background_is_that_of_training_and_faint_noise_belongs_to_it():
    x, _ = drawings(10)
    layer = fitted(WidthInputs(14), 0.8 - 0.5 * x)
    torch.testing.assert_close(layer.background, torch.full((1, 1, 1), 0.8))
    clear = fitted(WidthInputs(14), x)
    noisy = x + 0.02 * torch.rand_like(x)
    torch.testing.assert_close(clear(noisy), clear(x), rtol=0, atol=0.05)


def test_an_image_of_nothing_stays_and_one_that_fills_its_width_is_resized_as_a_whole():
    layer = fitted(WidthInputs(14), drawings(10)[0])
    assert torch.equal(layer(torch.zeros(1, 1, 28, 28)), torch.zeros(1, 1, 28, 28))
    full = torch.rand(1, 1, 28, 28).clamp_min(0.5)
    expected = nn.functional.interpolate(full, (28, 14), mode="bilinear", antialias=True)
    torch.testing.assert_close(layer(full)[..., 7:21], expected, rtol=1e-4, atol=1e-5)


def test_images_of_another_width_are_refused():
    with pytest.raises(ValueError, match="made for images 28 pixels wide, got 20: keep their size"):
        fitted(WidthInputs(), drawings(10)[0])(torch.zeros(1, 1, 20, 20))


def test_gradients_reach_the_raw_inputs_and_mixed_precision_changes_nothing():
    x, _ = drawings(10)
    layer, raw = fitted(WidthInputs(12), x), x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(raw).sum(), raw)
    inside = x.amax((1, 2)) > 0
    assert gradient.isfinite().all() and gradient.abs().amax((1, 2))[inside].min() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), fitted(WidthInputs(12), x)(x)) and layer(x).dtype == torch.float32


def test_buffers_of_a_loaded_run_come_from_its_checkpoint():
    x, plugin = 1 - drawings(20)[0], WidthInputs()
    trained = fitted(WidthInputs(), x)
    plugin.prepare(Setting((1, 28, 28), ()))
    loaded = plugin.transform_model(nn.Identity())
    assert not torch.equal(loaded(x), trained(x))
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(x), trained(x))


@pytest.mark.parametrize(
    ("shape", "task", "message"),
    [
        ((6,), Task("", "classification", 3), r"takes images .*, and samples are \(6,\): type preprocessing=standardize"),
        ((1, 8, 8), Task("", "classification", 3), "images are 8 pixels wide, and width=9: type preprocessing.width=8 or less"),
        ((1, 9, 9), Task("", "classification", 3, shape=(9, 9)), "class maps"),
        ({"tokens": Entry((4,), "int64", 9, 0)}, Task("", "classification", 3), "one tensor of numbers, .* preprocessing=none"),
    ],
    ids=["table", "narrow", "maps", "named"],
)
def test_refuses(shape, task, message):
    with pytest.raises(Refusal, match=message):
        check_selection(Selection([WidthInputs(9)], Setting(shape, (task,))))


def beside(plugin, x):
    """The layer for images, with a technique that changes them in training."""
    given = Setting(tuple(x.shape[1:]), (Task("", "classification", 3),), training_inputs=lambda: iter([x]))
    width = WidthInputs()
    check_selection(Selection([width, plugin], given))
    for each in (width, plugin):
        each.prepare(given)
    return width.transform_model(nn.Identity())


def test_what_noise_makes_of_the_background_would_be_drawn_in_training_alone():
    x, _ = drawings(20)
    noise = GaussianNoise()
    noise.prepare(Setting((1, 28, 28), (), training_inputs=lambda: iter([x])))
    noisy = noise.transform(x, torch.Generator())
    clear, found = (fitted(WidthInputs(), x)(each) for each in (x, noisy))
    assert (clear - found).abs().amax((1, 2, 3)).median() > 0.3  # of noise of 0.05
    for plugin in (GaussianNoise(), TrivialAugment()):
        with pytest.raises(Refusal, match="on the background|a background .*counts as what is drawn, in training alone; type"):
            beside(plugin, x)


@pytest.mark.parametrize("kind", [RandomCrop, Cutout, Rotate], ids=lambda kind: kind.__name__)
def test_what_is_filled_in_must_be_the_background(kind):
    x, _ = drawings(20)
    beside(kind(), x)
    with pytest.raises(
        Refusal, match=r"fills in 0, .*on a background of 1: type augmentation.\w+.fill=1, preprocessing=standardize, or"
    ):
        beside(kind(), 1 - x)
    beside(kind(fill=1.0), 1 - x)


@pytest.mark.parametrize("kind", [Solarize, ThreeAugment, Grayscale], ids=lambda kind: kind.__name__)
def test_a_background_that_is_not_black_is_not_recoloured(kind):
    x, _ = drawings(20)
    beside(kind(), x)
    with pytest.raises(
        Refusal, match="changes a background of 1, .* in training alone: type preprocessing=standardize, or leave"
    ):
        beside(kind(), 1 - x)
    with pytest.raises(Refusal, match="changes a background of 0"):
        beside(Solarize(threshold=0.0), x)
