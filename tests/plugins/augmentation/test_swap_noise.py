import random

import torch

from plugins.augmentation._table import columns
from plugins.augmentation.swap_noise import SwapNoise, swap
from plugins.base import Batch
from recipes.data.csv import CsvData
from tests.plugins.augmentation.test_feature_noise import built


def table(folder, rows=300):
    """A csv file of numbers, some 0 or 1, and of categories, and its training rows as features."""
    random.seed(int(torch.randint(2**31, ())))
    kinds = {"city": "abcde", "size": "sml", "one": "x", "colour": "rg"}
    lines = ["height,sick,age,poor,y," + ",".join(kinds)]
    for _ in range(rows):
        numbers = [random.gauss(0, 3), random.randint(0, 1), random.randint(20, 60), random.randint(0, 1), random.choice("pq")]
        lines.append(",".join(map(str, [*numbers, *(random.choice(words) for words in kinds.values())])))
    (folder / "table.csv").write_text("\n".join(lines))
    data = CsvData(folder / "table.csv", "y")
    data.setup()
    return data, data.splits["train"].x


def test_columns_are_those_that_the_file_has(tmp_path):
    data, x = table(tmp_path)
    widths = [column.width for column in sorted(data._columns, key=lambda column: column.kind != "numeric")]
    assert widths == [1, 1, 1, 1, 5, 3, 1, 2]
    expected = [number for number, width in enumerate(widths) for _ in range(width)]
    assert columns(lambda: iter(x.chunk(4))).tolist() == expected


def test_values_come_from_rows_of_the_batch_and_categories_stay_whole(tmp_path):
    _, train = table(tmp_path, 600)
    plugin, y = SwapNoise(0.25), {"": torch.zeros(256)}
    x, column, before = train[:256], columns(lambda: iter([train])), train.clone()
    module = built(plugin, train)
    out, generator = plugin.transform_batch(Batch(x, y, y), module).x, module.generator("swap_noise")
    swapped = torch.rand(256, 8, generator=generator) < 0.25
    rows = torch.randint(256, (256, 8), generator=generator)
    for i in range(256):
        for j in range(x.shape[1]):
            place = column[j]
            assert out[i, j] == (x[rows[i, place], j] if swapped[i, place] else x[i, j])
    for number in range(4, 8):
        assert (out[:, column == number].sum(1) == 1).all()
    assert torch.equal(train, before) and len(swapped.unique(dim=0)) > 80


def test_images_are_swapped_number_by_number():
    x, rows = torch.rand(5, 1, 2, 2), torch.tensor([[1] * 4, [2] * 4, [3] * 4, [4] * 4, [0] * 4])
    assert torch.equal(swap(x, rows, rows >= 0, torch.arange(4)), x.roll(-1, 0))
    assert torch.equal(swap(x, rows, rows < 0, torch.arange(4)), x)


def test_neighbours_that_are_no_choice_are_columns_of_their_own():
    rare = (torch.arange(200) < 3).float()
    often = torch.randint(2, (200,)).float()
    x = torch.stack([often, torch.zeros(200), rare, 1 - rare, often, torch.rand(200), 1 - often], 1)
    found = columns(lambda: iter([x]))
    assert found[2] == found[3] and len(found.unique()) >= 5 and found[4] != found[6] != found[5]
