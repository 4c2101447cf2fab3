import pytest
import torch
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation._images import below
from plugins.augmentation.cutmix import CutMix
from plugins.augmentation.mixup import Mixup
from plugins.augmentation.resizemix import ResizeMix
from plugins.base import Refusal, Task

SHAPE = (3, 13, 16)


def test_pastes_what_torchvision_shrinks_image_by_image(build, batch, drawn):
    plugin, given, generator = ResizeMix(scale=[0.05, 1.0]), batch(256, SHAPE), drawn("resizemix")
    before, labels = given.x.clone(), given.labels[""].clone()
    out = plugin.transform_batch(given, build(plugin, shape=SHAPE))
    partner = torch.randperm(256, generator=generator)
    side = 0.05 + 0.95 * torch.rand(256, generator=generator)
    heights, widths = ((side * length + 0.5).long() for length in SHAPE[1:])
    top, left = below(13 - heights + 1, generator), below(16 - widths + 1, generator)
    assert len(torch.stack([top, left, heights, widths], 1).unique(dim=0)) > 150
    for i in range(256):
        t, c, h, w, other = (int(part[i]) for part in (top, left, heights, widths, partner))
        expected = before[i].clone()
        expected[:, t : t + h, c : c + w] = torchvisions.resize(before[other], [h, w], antialias=True)
        torch.testing.assert_close(out.x[i], expected, rtol=0, atol=1e-5)
        outside = torch.ones(13, 16, dtype=torch.bool)
        outside[t : t + h, c : c + w] = False
        assert torch.equal(out.x[i][:, outside], before[i][:, outside])
        kept = float(outside.float().mean())
        exact = kept * torch.eye(5)[labels[i]] + (1 - kept) * torch.eye(5)[labels[other]]
        torch.testing.assert_close(out.targets[""][i], exact)
    assert torch.equal(given.x, before) and torch.equal(out.labels[""], labels)


def test_autocast_does_not_round_images(build, batch):
    plugin, given = ResizeMix(), batch(8, SHAPE)
    expected = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plugin.transform_batch(given, build(plugin, shape=SHAPE)).x, expected)


def test_each_batch_gets_exactly_one_of_three(build, batch):
    given, kinds, taken = batch(16), (Mixup, CutMix, ResizeMix), []
    for seed in range(60):
        x = given.x
        module = build(*(kind() for kind in reversed(kinds)), seed=seed)
        together = given
        for plugin in module.plugins:
            together = plugin.transform_batch(together, module)
        alone = [plugin.transform_batch(given, build(plugin, seed=seed)).x for plugin in (kind() for kind in kinds)]
        same = [torch.equal(together.x, one) for one in alone]
        assert sum(same) == 1 and not torch.equal(together.x, x)
        taken.append(same.index(True))
    assert min(map(taken.count, range(3))) > 6


def test_class_maps_are_refused(build):
    with pytest.raises(Refusal, match="augmentation/resizemix takes targets with one label a sample"):
        build(ResizeMix(), tasks=[Task("", "classification", 3, shape=(8, 10))])
