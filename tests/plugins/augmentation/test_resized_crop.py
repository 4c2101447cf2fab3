import torch
from scipy import stats
from torchvision.transforms.v2 import RandomResizedCrop as Torchvisions
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation.resized_crop import ResizedCrop

SHAPE = (3, 13, 16)
LEVEL = 1 / 255


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given = ResizedCrop(), batch(256, SHAPE)
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    windows = torch.stack(plugin.windows(before, drawn("resized_crop")), 1)
    assert len(windows.unique(dim=0)) > 200
    for image, result, window in zip(before, out, windows.tolist(), strict=True):
        expected = torchvisions.resized_crop(image, *window, SHAPE[1:])
        assert (result - expected).abs().max() < LEVEL
    assert torch.equal(given.x, before)


def test_windows_are_distributed_as_torchvisions(drawn):
    image, oracle = torch.rand(1, 40, 60), Torchvisions(32)
    made = [oracle.make_params([image]) for _ in range(1000)]
    ours = ResizedCrop().windows(image.expand(4000, 1, 40, 60), torch.Generator().manual_seed(int(torch.randint(2**40, ()))))
    top, left, heights, widths = ours
    assert (top >= 0).all() and (top + heights <= 40).all() and (left >= 0).all() and (left + widths <= 60).all()
    for found, name in zip(ours, ("top", "left", "height", "width"), strict=True):
        theirs = torch.tensor([params[name] for params in made])
        assert stats.ks_2samp(found.numpy(), theirs.numpy()).pvalue > 1e-6


def test_where_no_window_fits_it_is_the_largest_in_the_middle():
    for shape in ((4, 40), (40, 4), (9, 9)):
        x, ratio = torch.rand(5, 1, *shape), [0.75, 1.3333] if shape[0] != shape[1] else [1.2, 1.3]
        oracle = Torchvisions(32, scale=(0.99, 1.0), ratio=ratio).make_params([x])
        found = ResizedCrop(scale=[0.99, 1.0], ratio=ratio).windows(x, torch.Generator())
        expected = [oracle[name] for name in ("top", "left", "height", "width")]
        assert torch.stack(found, 1).tolist() == [expected] * 5
