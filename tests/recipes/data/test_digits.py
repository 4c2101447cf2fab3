import numpy as np
import torch
from sklearn.datasets import load_digits

from recipes.data.digits import Digits


def test_digits_are_all_there_in_the_unit_range():
    data = Digits()
    data.setup()
    assert data.shape == (1, 8, 8) and [(task.name, task.outputs) for task in data.tasks] == [("", 10)]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1293, "val": 144, "test": 360}
    x = torch.cat([split.x for split in data.splits.values()])
    assert x.dtype == torch.float32 and x.min() == 0 and x.max() == 1
    theirs = load_digits()
    ours = {(image.numpy() * 16).astype(np.uint8).tobytes() for image in x[:, 0]}
    assert ours == {image.astype(np.uint8).tobytes() for image in theirs.images}
    labels = torch.cat([split.targets[""] for split in data.splits.values()])
    assert torch.equal(torch.bincount(labels), torch.from_numpy(np.bincount(theirs.target)))


def test_labels_stay_with_their_images():
    theirs = load_digits()
    known = {image.astype(np.uint8).tobytes(): label for image, label in zip(theirs.images, theirs.target, strict=True)}
    data = Digits(split_seed=3)
    data.setup()
    for split in data.splits.values():
        images = (split.x[:, 0].numpy() * 16).astype(np.uint8)
        assert [known[image.tobytes()] for image in images] == split.targets[""].tolist()
