"""The site's pictures of augmentations: photographs in the first column, a draw of its own in each other place."""

from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from recipes.config.catalogue import Catalogue, Option
from tests.site import site

ROOT = Path(__file__).parents[1]
OPTIONS = Catalogue().groups["augmentation"]


@pytest.fixture(scope="module")
def pictures():
    return site("pictures")


@pytest.mark.parametrize("name", ["rotate", "cutmix", "randaugment"])
def test_a_row_for_each_photograph_with_a_draw_in_each_place(pictures, name):
    content, originals = pictures.picture(OPTIONS[name]), pictures.photographs()
    grid = pil_to_tensor(Image.open(BytesIO(content))).float() / 255
    side, seen = pictures.SIDE * pictures.ENLARGED, []
    for row, original in enumerate(originals):
        for column in range(1 + pictures.DRAWS):
            top, left = 4 + row * (side + 4), 4 + column * (side + 4)
            seen.append(grid[:, top : top + side, left : left + side][:, :: pictures.ENLARGED, :: pictures.ENLARGED])
        assert (seen[-1 - pictures.DRAWS] - original).abs().max() <= 0.5 / 255 + 1e-6
    assert len(torch.stack(seen).flatten(1).unique(dim=0)) > 4  # where equal photographs are mixed nothing is to be seen


@pytest.mark.parametrize("name", OPTIONS)
def test_a_picture_shows_what_is_done(pictures, name):
    content = pictures.picture(OPTIONS[name])
    if content is None:
        return
    grid = pil_to_tensor(Image.open(BytesIO(content)))
    step = pictures.SIDE * pictures.ENLARGED + 4
    columns = [grid[:, :, at * step + 4 : (at + 1) * step] for at in range(1 + pictures.DRAWS)]
    assert any(not torch.equal(column, columns[0]) for column in columns[1:])


def test_what_takes_no_photographs_has_none(pictures, tmp_path):
    path = tmp_path / "crop.yaml"  # larger than a photograph
    path.write_text("# A.\ncrop:\n  _target_: plugins.augmentation.crop.RandomCrop\n  size: 1000\n")
    assert pictures.picture(Option("augmentation", "crop", path)) is None
    assert pictures.place(OPTIONS["crop"]) == "pictures/augmentation-crop.png"
