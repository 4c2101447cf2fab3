import math

import pytest
import torch

from plugins.augmentation.cutmix import CutMix, cutmix


def test_the_boxes_written_out():
    x, partners = torch.rand(60, 3, 8, 10), torch.rand(60, 3, 8, 10)
    rows, columns, share = torch.randint(8, (60,)), torch.randint(10, (60,)), torch.rand(60)
    share[0], share[1] = 1.0, 0.0
    out, kept = cutmix(x, partners, rows, columns, share)
    for i in range(60):
        side = math.sqrt(1 - share[i].item())
        height, width = int(8 * side), int(10 * side)
        top, left = rows[i].item() - height // 2, columns[i].item() - width // 2
        expected, pixels = x[i].clone(), 80
        for row in range(max(0, top), min(8, top + height)):
            for column in range(max(0, left), min(10, left + width)):
                expected[:, row, column] = partners[i, :, row, column]
                pixels -= 1
        assert torch.equal(out[i], expected)
        assert kept[i].item() == pytest.approx(pixels / 80, abs=1e-6)
    assert torch.equal(out[0], x[0]) and kept[0] == 1


def test_targets_are_the_exact_share_of_pixels(build, batch):
    plugin, given = CutMix(alpha=1.0), batch(64)
    given.labels[""] = given.targets[""] = torch.arange(64) % 5
    # each image is filled with its own number, so every pixel says where it comes from
    given.x = torch.arange(64.0).view(-1, 1, 1, 1).expand(64, 3, 8, 10)
    out = plugin.transform_batch(given, build(plugin))
    expected = torch.zeros(64, 5)
    for i in range(64):
        sources, counts = out.x[i, 0].unique(return_counts=True)
        assert len(sources) <= 2
        for source, count in zip(sources.long(), counts, strict=True):
            expected[i, source % 5] += count / 80
        assert (out.x[i] == out.x[i, :1]).all()  # all channels alike
    torch.testing.assert_close(out.targets[""], expected)
    assert len(out.targets[""].max(1).values.unique()) > 10  # a box of its own for each sample
    assert torch.equal(out.labels[""], torch.arange(64) % 5)
