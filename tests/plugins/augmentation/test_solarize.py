import torch
from torchvision.transforms.v2 import functional as F

from plugins.augmentation.solarize import Solarize


def test_some_images_are_solarized_as_torchvision_does(build, batch):
    plugin, given = Solarize(0.3, threshold=0.4), batch(2000, (3, 4, 4))
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin, shape=(3, 4, 4))).x
    changed = (out != before).flatten(1).any(1)
    assert torch.equal(out[changed], F.solarize(before[changed], 0.4))
    assert torch.equal(out[~changed], before[~changed]) and torch.equal(given.x, before)
    assert abs(int(changed.sum()) - 600) < 6 * (2000 * 0.3 * 0.7) ** 0.5
