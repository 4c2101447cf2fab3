from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as TF

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.inference.tta import TestTimeAugmentation, corners, scaled
from plugins.loss.by_task import LossByTask
from recipes.engine.module import RecipeModule


def built(plugin, model, task, shape=(2, 9, 12)):
    module = RecipeModule(model, LossByTask(), partial(torch.optim.SGD, lr=0.1), standardize_targets=False)
    module.build([plugin], Setting(shape, (task,)), devices=1)
    return module.eval()


@pytest.mark.parametrize("factor", [1.1, 1.5, 2.0])
def test_enlarging_equals_torchvision(factor):
    x = torch.randn(4, 2, 9, 12)
    size = [round(factor * 9), round(factor * 12)]
    expected = TF.resize(x, size, antialias=False)
    top, left = (size[0] - 9) // 2, (size[1] - 12) // 2
    torch.testing.assert_close(scaled(x, factor), TF.crop(expected, top, left, 9, 12))


def test_shrinking_equals_torchvision_with_its_edges_repeated():
    x = torch.randn(4, 2, 10, 12)
    small = TF.resize(x, [7, 8], antialias=True).numpy()
    expected = np.pad(small, ((0, 0), (0, 0), (2, 1), (2, 2)), mode="edge")
    torch.testing.assert_close(scaled(x, 0.7), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)
    assert torch.equal(scaled(x, 1.0), x)


def test_corners_equal_numpy():
    x = torch.randn(4, 2, 9, 12)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    expected = [x.numpy(), *(padded[:, :, top : top + 9, left : left + 12] for top in (0, 4) for left in (0, 4))]
    found = list(corners(x, 2))
    assert len(found) == 5 and all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert [view.shape for view in corners(x, 0)] == [x.shape]


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_the_mean_over_all_combinations_of_views(kind):
    plugin, model = TestTimeAugmentation(crops=1, scales=[1.0, 1.4]), nn.Sequential(nn.Flatten(), nn.Linear(216, 3))
    task = Task("", kind, 3)
    module = built(plugin, model, task)
    x = torch.randn(7, 2, 9, 12)
    views = [view for factor in (1.0, 1.4) for view in corners(scaled(x, factor), 1)]
    assert len(views) == 10
    outputs = [model(view) for view in views] + [model(torch.flip(view, [3])) for view in views]
    expected = torch.stack([task.probabilities(out) for out in outputs]).mean(0)
    torch.testing.assert_close(plugin.predict(module, x)[""], expected)


def test_a_class_map_is_mirrored_back():
    plugin, model = TestTimeAugmentation(), nn.Conv2d(2, 3, 3, padding=1)
    with torch.no_grad():
        model.weight.copy_((model.weight + model.weight.flip(-1)) / 2)  # it makes no difference between left and right
    module = built(plugin, model, Task("", "classification", 3, shape=(9, 12)))
    x = torch.randn(5, 2, 9, 12)
    torch.testing.assert_close(plugin.predict(module, x)[""], model(x).softmax(1))


def test_refuses():
    def check(plugin, shape, *places):
        plugin.check(Selection([plugin], Setting(shape, (Task("", "classification", 3, shape=places),))))

    for plugin, shape, places, message in [
        (TestTimeAugmentation(), (6,), (), r"needs images \(channels, height, width\), but a sample has the shape \(6,\)"),
        (TestTimeAugmentation(crops=1), (1, 8, 8), (8, 8), r"moves pixels by crops and scales, .*type inference.crops=0"),
        (TestTimeAugmentation(scales=[1, 2]), (1, 8, 8), (8, 8), "moves pixels by crops and scales"),
        (TestTimeAugmentation(), (1, 8, 8), (4, 4), r"target y has places \(4, 4\) for images of \(8, 8\)"),
    ]:
        with pytest.raises(Refusal, match=message) as error:
            check(plugin, shape, *places)
        assert "\n" not in str(error.value)
    for scales in ([0.0], [-1], ["a"], [True], [float("nan")]):
        with pytest.raises(RecipeError, match="scales must be a list of numbers above 0"):
            TestTimeAugmentation(scales=scales)
    assert TestTimeAugmentation(flip=False).is_off and not TestTimeAugmentation().is_off
