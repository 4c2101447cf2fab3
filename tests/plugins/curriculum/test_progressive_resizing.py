import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2 import functional as torchvisions

from plugins.base import Batch, RecipeError, Refusal, Setting, Task
from plugins.curriculum.progressive_resizing import ProgressiveResizing, picked, resized, size_at
from recipes.check.selections import refusal_of
from recipes.engine.module import RecipeModule

CLASSES = (Task("", "classification", 3),)


def published(elapsed, side, initial, delay, finetune, increment):
    """The scale of Composer's pseudo-code, and a side by it."""
    scale_frac_elapsed = min([(elapsed - delay) / (1 - finetune - delay), 1]) if elapsed >= delay else 0.0
    scale_factor = initial + (1 - initial) * scale_frac_elapsed
    pinned = round(side * scale_factor / increment) * increment
    full = scale_factor > 1 - 1e-12  # also where that is no multiple
    return scale_factor, side if full or pinned >= side else max(pinned, increment)


def test_sizes_are_the_published_ones():
    for elapsed, initial, delay, finetune in torch.rand(100, 4, dtype=torch.float64).tolist():
        delay, finetune, increment = delay / 2, finetune / 2, int(torch.randint(1, 9, ()))
        scale, side = published(elapsed, 64, initial, delay, finetune, increment)
        found = ProgressiveResizing(initial, delay, finetune, increment).scale(elapsed)
        assert found == pytest.approx(scale) and size_at(64, found, increment) == side
    assert size_at(28, 1.0, 8) == 28 and size_at(3, 0.2, 8) == 3
    full = [ProgressiveResizing(0.5, 0.9, 0.3).scale(t) for t in (0.0, 0.69, 0.7, 1.0)]  # no time to grow in
    assert full == [0.5, 0.5, 1.0, 1.0]


def test_images_are_those_of_torchvision_and_labels_the_nearest():
    x, labels = torch.rand(5, 3, 13, 16), torch.randint(9, (5, 13, 16))
    expected = torchvisions.resize(x, [7, 11], antialias=True)
    found = resized(x, 7, 11)
    torch.testing.assert_close(found, expected)
    assert (found.amax((1, 2, 3)) <= x.amax((1, 2, 3))).all()
    nearest = functional.interpolate(labels.unsqueeze(1).float(), (7, 11), mode="nearest-exact").squeeze(1).long()
    assert torch.equal(picked(labels, 7, 11), nearest)
    assert torch.equal(picked(labels.unsqueeze(1), 7, 11), nearest.unsqueeze(1))


def built(plugin, setting, model):
    module = RecipeModule(model, nn.CrossEntropyLoss(), torch.optim.SGD)
    module.build([plugin], setting, devices=1)
    return module


def test_maps_and_their_weights_go_with_their_images():
    setting = Setting((3, 12, 16), (Task("", "classification", 4, shape=(12, 16)),))
    plugin = ProgressiveResizing(0.5, size_increment=2)
    module = built(plugin, setting, nn.Conv2d(3, 4, 3, padding=1))
    labels, weight = torch.randint(4, (6, 12, 16)), torch.rand(6, 12, 16)
    given = Batch(torch.rand(6, 3, 12, 16), {"": labels}, {"": labels}, weight={"": weight})
    after = plugin.transform_batch(given, module)
    assert after.x.shape == (6, 3, 6, 8) and after.targets[""] is after.labels[""]
    assert torch.equal(after.labels[""], picked(labels, 6, 8)) and torch.equal(after.weight[""], picked(weight, 6, 8))
    assert torch.equal(given.labels[""], labels) and given.x.shape == (6, 3, 12, 16)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def images(samples):
    return DataLoader(TensorDataset(torch.rand(samples, 1, 16, 16), torch.randint(3, (samples,))), batch_size=8)


def test_a_training_sees_images_grow(problem):
    problem.model, problem.copy = Net(), Net
    problem.validation = images(8)
    problem.fit(ProgressiveResizing(0.5, 0.2, 0.2, 2), loader=images(80), steps=10)
    expected = [published(step / 10, 16, 0.5, 0.2, 0.2, 2)[1] for step in range(10)]
    assert problem.log.series("progressive_resizing/height") == problem.log.series("progressive_resizing/width") == expected
    assert expected[0] == 8 and expected[-1] == 16 and 12 in expected


class Halving(nn.Module):
    """Adds maps of half the side to others, which fits where the side is even twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        x = self.layer(x)
        return (x + functional.interpolate(functional.avg_pool2d(x, 4), scale_factor=4)).mean((2, 3))


def test_refuses_models_that_fail_on_a_size_in_between():
    setting = Setting((1, 16, 16), CLASSES)
    built(ProgressiveResizing(0.5, size_increment=4), setting, Halving())
    with pytest.raises(Refusal, match="needs a model that takes images of several sizes, and Halving takes none of 10 × 10"):
        built(ProgressiveResizing(0.5, size_increment=2), setting, Halving())


def test_refuses_models_of_one_size_and_other_data(problem):
    told = refusal_of(["curriculum/progressive_resizing"])
    assert "needs a model that takes images of several sizes, and SmallNet takes none of 6 × 6: type model=resnet18" in told
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(Refusal, match="Sequential takes none of 2 × 2"):
        built(ProgressiveResizing(size_increment=2), Setting((3, 4, 4), CLASSES), flat)
    with pytest.raises(Refusal, match="needs images .*, but a sample has the shape .4,.: choose data of images"):
        built(ProgressiveResizing(), Setting((4,), CLASSES), nn.Linear(4, 3))
    problem.model, problem.copy = Net(), Net
    problem.validation = images(8)
    with pytest.raises(RecipeError, match="counts shares of the training, and it has no end: set max_epochs or max_steps"):
        problem.fit(ProgressiveResizing(), loader=images(8), steps=-1, max_epochs=-1)


def test_refuses_what_stands_in_front_and_counts_in_pixels():
    told = refusal_of(["curriculum/progressive_resizing", "preprocessing/width", "model/resnet18"])
    assert "6 × 6, which preprocessing/width does not take: type preprocessing=standardize, or leave" in told
