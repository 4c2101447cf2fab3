"""Over all augmentations of conf/ that move pixels: labels, their weights and softened targets of class maps go where the pixels go."""

import pytest
import torch

from plugins.augmentation._geometry import Geometric, Padded
from plugins.base import Batch, RecipeError, Setting, Task, class_probabilities
from plugins.loss.by_task import LossByTask
from plugins.loss.cross_entropy import CrossEntropy
from recipes.check.choice import options, plugin_class
from recipes.engine.module import RecipeModule

HEIGHT, WIDTH, SAMPLES, IGNORED = 8, 10, 64, 255
MOVING = [
    name
    for name in options()
    if name.startswith("augmentation/") and (kind := plugin_class(name)) is not None and issubclass(kind, Geometric)
]


def built(kind, ignored=True):
    """A module for maps of as many classes as there are pixels."""
    loss = CrossEntropy(IGNORED) if ignored else LossByTask()
    module = RecipeModule(torch.nn.Conv2d(2, HEIGHT * WIDTH, 1), loss, torch.optim.SGD)
    task = Task("", "classification", HEIGHT * WIDTH, shape=(HEIGHT, WIDTH))
    module.build([kind()], Setting((2, HEIGHT, WIDTH), (task,)), devices=1)
    return module


def places():
    """Images whose channels are the row and the column of each pixel, and maps of the number of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    x = torch.stack([rows, columns]).float().expand(SAMPLES, -1, -1, -1)
    return x, (rows * WIDTH + columns).expand(SAMPLES, -1, -1)


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
@pytest.mark.parametrize("name", MOVING)
def test_labels_weights_and_targets_go_where_pixels_go(name, soft):
    module, (x, labels) = built(plugin_class(name)), places()
    weight = 1.0 + labels
    targets = class_probabilities(labels, HEIGHT * WIDTH) if soft else labels
    given = Batch(x, {"": targets}, {"": labels}, weight={"": weight}, samples=torch.arange(SAMPLES))
    out = module.plugins[0].transform_batch(given, module)
    found, known = out.labels[""], out.labels[""] != IGNORED
    assert not torch.equal(out.x, x) and known.float().mean() > 0.5 and found[known].max() < HEIGHT * WIDTH
    row, column = found // WIDTH, found % WIDTH
    inner = (
        known & (row > 0) & (row < HEIGHT - 1) & (column > 0) & (column < WIDTH - 1)
    )  # others are mixed with what is outside
    for channel, place in ((0, row), (1, column)):
        assert ((out.x[:, channel] - place).abs()[inner] <= 0.5 + 1e-3).all()
    assert torch.equal(out.weight[""][known], 1.0 + found[known]) and (out.weight[""][~known] == 0).all()
    target = out.targets[""].argmax(1) if soft else out.targets[""]
    assert torch.equal(target[known], found[known])
    assert torch.equal(labels, places()[1])


@pytest.mark.parametrize("name", MOVING)
def test_where_no_label_is_ignored_maps_are_not_padded(name):
    (x, labels), kind = places(), plugin_class(name)
    if issubclass(kind, Padded) and kind().fills():
        text = (
            f"^{name} pads class maps with the label that the loss ignores, and this one ignores none: type loss=cross_entropy"
        )
        with pytest.raises(RecipeError, match=text):
            built(kind, ignored=False)
        return
    module = built(kind, ignored=False)
    given = Batch(x, {"": labels}, {"": labels}, samples=torch.arange(SAMPLES))
    out = module.plugins[0].transform_batch(given, module)
    assert out.targets[""] is out.labels[""] and out.weight == {} and out.labels[""].max() < HEIGHT * WIDTH
