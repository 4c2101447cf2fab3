import pytest
import torch

from plugins.augmentation.crop import RandomCrop
from plugins.augmentation.cutout import Cutout, cutout
from plugins.base import Batch, Refusal, Selection, Setting, Task, check_selection


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


OTHER_UNITS = torch.rand(20, 1, 8, 8) * 80 - 80  # decibels, of which 0 is the loudest


def setting_of(x):
    return Setting(tuple(x.shape[1:]), (Task("", "classification", 5),), 0, lambda: iter([x]))


@pytest.mark.parametrize("kind", [Cutout, RandomCrop])
def test_what_is_blank_in_other_units_is_asked_for(kind):
    fills = {Cutout: {"size": 3}, RandomCrop: {"padding": 3}}[kind]
    assert not RandomCrop(padding=0, size=5).fills()
    with pytest.raises(Refusal, match=rf"fills in 0, .* from -\d.*: type augmentation.{kind(**fills).option}.fill=VALUE"):
        check_selection(Selection([kind(**fills)], setting_of(OTHER_UNITS)))
    check_selection(Selection([kind(**fills, fill=-80)], setting_of(OTHER_UNITS)))
    check_selection(Selection([kind(**fills)], setting_of(torch.rand(20, 1, 8, 8))))


def test_the_fill_is_put_in(build):
    x, y = OTHER_UNITS, torch.randint(5, (20,))
    for plugin in (Cutout(size=3, fill=-99.5), RandomCrop(padding=3, fill=-99.5)):
        out = plugin.transform_batch(Batch(x, {"": y}, {"": y}), build(plugin, shape=(1, 8, 8))).x
        filled = out == -99.5
        assert filled.any() and not (out == 0).any()
        assert torch.isin(out[~filled], x).all()
