"""Points lie where an image is bright, as often as it is, and a model of sets learns from them."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from plugins.base import RecipeError
from recipes.data.points import PointClouds, point_clouds
from tests.command import command


def test_points_are_drawn_by_brightness():
    """Counted in each pixel they are as many as its share of the brightness says, within the error of counting."""
    image = torch.rand(1, 3, 4, 6) * (torch.rand(1, 1, 4, 6) > 0.4)
    image[0, :, 1, 2] += 0.5
    count = 200_000
    (cloud,) = point_clouds(image, count, torch.Generator().manual_seed(int(np.random.default_rng().integers(1 << 30))))
    assert cloud[:, 0].abs().max() <= 1 and cloud[:, 1].abs().max() <= 4 / 6
    column, row = ((cloud[:, 0] + 1) * 3).floor().long(), ((4 / 6 - cloud[:, 1]) * 3).floor().long()
    found = torch.zeros(4, 6).index_put((row.clamp(0, 3), column.clamp(0, 5)), torch.ones(count), accumulate=True) / count
    share = image[0].mean(0) / image[0].mean(0).sum()
    assert bool(((found - share).abs() <= 5 * (share * (1 - share) / count).sqrt() + 1e-4).all())


def test_a_black_image_and_a_place_in_a_pixel():
    clouds = point_clouds(torch.zeros(2, 1, 8, 8), 4000, torch.Generator().manual_seed(0))
    assert clouds.shape == (2, 4000, 2) and float(clouds.mean().abs()) < 0.05
    assert len(clouds[0].unique(dim=0)) == 4000  # anywhere in a pixel, not at its middle


def test_clouds_have_the_labels_of_their_images_and_stay_the_same():
    data, again, other = PointClouds(points=300), PointClouds(points=300), PointClouds(points=300, split_seed=1)
    for each in (data, again, other):
        each.setup()
    assert data.shape == (300, 2) and data.splits["train"].x.dtype == torch.float32
    assert data.tasks[0].outputs == 10 and data.fingerprint == again.fingerprint != other.fingerprint
    clouds, _ = data.load()
    bunch = load_digits()
    assert clouds.targets[""].tolist() == bunch.target.tolist()
    points = clouds.x
    column, row = ((points[..., 0] + 1) * 4).long().clamp(0, 7), ((1 - points[..., 1]) * 4).long().clamp(0, 7)
    ink = torch.from_numpy(bunch.images)[torch.arange(len(points))[:, None], row, column]
    assert float((ink > 0).double().mean()) > 0.999


def test_images_of_a_file_keep_their_splits(tmp_path):
    x, y = np.random.randint(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "mnist.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    data = PointClouds("mnist", 16, str(tmp_path))
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 27, "val": 3, "test": 10}
    with pytest.raises(RecipeError, match=r"no fashion_mnist data in .*looked for fashion_mnist.npz"):
        PointClouds("fashion_mnist", 16, str(tmp_path)).setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"name": "mnits"}, "data.name must be one of digits, mnist, fashion_mnist"), ({"points": 0}, "data.points must be")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        PointClouds(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pointnet", "dgcnn"])
def test_models_of_points_train(tmp_path, model):
    words = ["data=points", "data.points=32", f"model={model}", "preprocessing=none", "max_steps=3", "logger=[]"]
    done = command("train.py", *words, "trainer.accelerator=cpu", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
