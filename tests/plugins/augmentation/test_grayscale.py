import torch
from torchvision.transforms.v2 import functional as F

from plugins.augmentation.grayscale import Grayscale


def test_some_images_are_torchvisions_without_colours(build, batch):
    plugin, given = Grayscale(0.3), batch(2000, (3, 4, 4))
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin, shape=(3, 4, 4))).x
    grey = F.rgb_to_grayscale(before, 3)
    changed = (out != before).flatten(1).any(1)
    torch.testing.assert_close(out[changed], grey[changed])
    assert torch.equal(out[~changed], before[~changed]) and torch.equal(given.x, before)
    assert abs(int(changed.sum()) - 600) < 6 * (2000 * 0.3 * 0.7) ** 0.5


def test_images_of_one_channel_stay_and_the_run_says_so(build, batch):
    plugin, given = Grayscale(1.0), batch(8, (1, 4, 4))
    assert torch.equal(plugin.transform_batch(given, build(plugin, shape=(1, 4, 4))).x, given.x)
    assert "one channel" in plugin.remarks[0]
    coloured = Grayscale(1.0)
    build(coloured)
    assert not coloured.remarks
