import pytest
import torch

from plugins.augmentation.cutout import Cutout, cutout
from plugins.base import RecipeError, Refusal


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 30])
def test_the_square_written_out(size):
    x = torch.rand(50, 3, 8, 10) + 0.1
    rows, columns = torch.randint(8, (50,)), torch.randint(10, (50,))
    out = cutout(x, rows, columns, size)
    for image, result, row, column in zip(x, out, rows.tolist(), columns.tolist(), strict=True):
        expected = image.clone()
        first_row, first_column = row - size // 2, column - size // 2
        expected[:, max(0, first_row) : first_row + size, max(0, first_column) : first_column + size] = 0
        assert torch.equal(result, expected)


def test_centres_are_uniform_and_drawn_for_each_sample(build, batch):
    plugin, given = Cutout(size=1), batch(8000)
    given.x = given.x + 0.1
    out = plugin.transform_batch(given, build(plugin)).x
    erased = (out == 0).all(1)
    assert (erased.sum((1, 2)) == 1).all()
    assert (erased.sum(0) - 100).abs().max() < 6 * 10
    assert (given.x > 0).all()


def test_zero_is_the_same_batch(build, batch):
    plugin, given = Cutout(size=0), batch()
    assert plugin.transform_batch(given, build(plugin)) is given


def test_refuses(build):
    with pytest.raises(RecipeError, match="size must be a whole number ≥ 0, got 2.5"):
        Cutout(size=2.5)
    with pytest.raises(Refusal, match="cutout needs images"):
        build(Cutout(), shape=(64,))
