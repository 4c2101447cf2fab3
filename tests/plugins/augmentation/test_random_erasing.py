import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import RandomErasing as Torchvisions
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation._images import below
from plugins.augmentation._windows import draw_windows
from plugins.augmentation.random_erasing import RATIO, RandomErasing
from plugins.base import RecipeError

AREA = [0.02, 0.4]


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given, generator = RandomErasing(p=0.7, area=AREA), batch(256), drawn("random_erasing")
    given.x = given.x + 0.1
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin)).x
    chosen = torch.rand(256, generator=generator) < 0.7
    heights, widths, fits = draw_windows(256, (8, 10), AREA, RATIO, torch.device("cpu"), generator)
    assert fits.all()
    top, left = below(8 - heights + 1, generator), below(10 - widths + 1, generator)
    assert len(torch.stack([top, left, heights, widths], 1).unique(dim=0)) > 150
    for image, result, erases, *box in zip(before, out, chosen, top, left, heights, widths, strict=True):
        expected = torchvisions.erase(image, *map(int, box), torch.zeros(1)) if erases else image
        assert torch.equal(result, expected)
    assert torch.equal(given.x, before)


def test_rectangles_are_distributed_as_torchvisions():
    image, oracle = torch.rand(3, 40, 60), Torchvisions(p=1, scale=AREA, ratio=RATIO)
    made = [oracle.make_params([image]) for _ in range(1000)]
    theirs = torch.tensor([[found["h"], found["w"]] for found in made if found["h"]])
    generator = torch.Generator().manual_seed(int(torch.randint(2**40, ())))
    heights, widths, fits = draw_windows(4000, (40, 60), AREA, RATIO, torch.device("cpu"), generator)
    for ours, column in ((heights, 0), (widths, 1)):
        assert stats.ks_2samp(ours[fits].numpy(), theirs[:, column].numpy()).pvalue > 1e-6
    top = below(40 - heights[fits] + 1, generator)
    assert (top >= 0).all() and (top + heights[fits] <= 40).all()
    assert stats.kstest((top / (40 - heights[fits] + 1)).numpy(), "uniform").statistic < 0.1


def test_ends_in_the_wrong_order_are_refused():
    words = r"area must be two numbers in \(0, 1\], the first not above the second, got \[0\.4, 0\.1\]"
    with pytest.raises(RecipeError, match=words):
        RandomErasing(area=[0.4, 0.1])
    for area in ([0.0, 0.5], [0.5, 1.1], [0.5], [0.1, 0.2, 0.3], [True, 1.0]):
        with pytest.raises(RecipeError, match="area must be two numbers"):
            RandomErasing(area=area)
    assert RandomErasing(area=(0.1, 1)).area == [0.1, 1.0] and RandomErasing(area=[0.5, 0.5]).area == [0.5, 0.5]


def test_the_fill_is_put_in(build, batch):
    plugin, given = RandomErasing(p=1.0, fill=-7.5), batch(50)
    out = plugin.transform_batch(given, build(plugin)).x
    filled = out == -7.5
    assert filled.flatten(1).any(1).all() and torch.equal(out[~filled], given.x[~filled])
