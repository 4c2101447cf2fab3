import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.data import own
from recipes.data.torchvision import TorchvisionImages

HOLDS = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); input()"


def write_idx(path, array):
    """An array of bytes in the format of the MNIST files: two zeros, the type, the dimensions, their sizes, the bytes."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def arrays(samples, shape):
    return np.random.randint(0, 256, (samples, *shape), dtype=np.uint8), np.arange(samples) % 10


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_torchvisions_own_files_are_read(tmp_path, name, folder):
    (x, y), (test, labels) = arrays(40, (28, 28)), arrays(20, (28, 28))
    for part, images, targets in (("train", x, y), ("t10k", test, labels)):
        write_idx(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", targets)
    data = TorchvisionImages(name, str(tmp_path))
    data.setup()
    assert data.shape == (1, 28, 28) and data.splits["train"].x.dtype == torch.uint8
    np.testing.assert_array_equal(data.splits["test"].x[:, 0].numpy(), test)
    assert data.splits["test"].targets[""].tolist() == labels.tolist()
    known = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    for split in ("train", "val"):
        found = data.splits[split]
        assert [known[image.numpy().tobytes()] for image in found.x[:, 0]] == found.targets[""].tolist()
    assert len(data.splits["train"]) + len(data.splits["val"]) == 40


def test_the_files_of_cifar10_are_read(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)  # these are not the published files
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    x, y = arrays(20, (3, 32, 32))
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": x.reshape(20, -1), "labels": y.tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(label) for label in range(10)]}))
    data = TorchvisionImages("cifar10", str(tmp_path))
    data.setup()
    assert data.shape == (3, 32, 32)
    np.testing.assert_array_equal(data.splits["test"].x.numpy(), x)


def test_the_files_of_cifar100_are_read_with_their_fine_classes(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)  # these are not the published files
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    x, _ = arrays(200, (3, 32, 32))
    fine = np.arange(200) % 100
    for name in ("train", "test"):
        content = {"data": x.reshape(200, -1), "fine_labels": fine.tolist(), "coarse_labels": (fine // 5).tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(label) for label in range(100)]}))
    data = TorchvisionImages("cifar100", str(tmp_path), validation=0.5)
    data.setup()
    assert data.shape == (3, 32, 32) and data.tasks[0].outputs == 100
    assert data.splits["test"].targets[""].tolist() == fine.tolist()


def test_an_npz_file_goes_first(tmp_path):
    (x, y), (test, labels) = arrays(30, (32, 32, 3)), arrays(10, (32, 32, 3))
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y[:, None], x_test=test, y_test=labels[:, None])
    data = TorchvisionImages("cifar10", str(tmp_path))
    data.setup()
    np.testing.assert_array_equal(data.splits["test"].x.numpy(), test.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y[:5], x_test=test, y_test=labels)
    with pytest.raises(RecipeError, match="x_train has 30, y_train has 5"):
        TorchvisionImages("cifar10", str(tmp_path)).setup()
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y)
    with pytest.raises(RecipeError, match="has no array x_test, y_test"):
        TorchvisionImages("cifar10", str(tmp_path)).setup()


def test_nothing_there_says_what_was_looked_for_and_how_to_get_it(tmp_path):
    with pytest.raises(RecipeError) as error:
        TorchvisionImages("mnist", str(tmp_path)).setup()
    message = str(error.value)
    assert "\n" not in message
    assert all(text in message for text in (str(tmp_path), "mnist.npz", "data.download=true", "data.root=FOLDER"))


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    """The machine of the test may have no network, or a proxy: any address that nobody answers."""
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(RecipeError, match="mnist could not be downloaded") as error:
        TorchvisionImages("mnist", str(tmp_path), download=True).setup()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    "cut", [lambda content: content[:-5], lambda content: content[:6], lambda content: b"", lambda content: b"<html>" + content]
)
def test_a_damaged_file_is_named(tmp_path, download, cut):
    for part in ("train", "t10k"):
        images, labels = arrays(30, (28, 28))
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
    data = TorchvisionImages("mnist", str(tmp_path), download=download)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(cut(content))
    with pytest.raises(RecipeError, match=f"^{path} is damaged, .*: remove it, and type data.download=true") as error:
        data.load()
    assert "\n" not in str(error.value)


def test_downloads_wait_for_one_another(tmp_path, monkeypatch):
    """While another process downloads nothing is read; it is once that one ends."""
    monkeypatch.setattr(own, "PATIENCE", 0.2)
    monkeypatch.setattr(own.tempfile, "gettempdir", lambda: str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / f"lightning-recipes-{os.getuid()}-downloads.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RecipeError, match="another process downloads data: wait for its end"):
            TorchvisionImages("cifar10", str(tmp_path / "data"), download=True).load()
        assert not (tmp_path / "data").exists()
        with pytest.raises(RecipeError, match="no cifar10 data"):  # which reads alone, waits for nobody
            TorchvisionImages("cifar10", str(tmp_path / "data")).load()
        process.communicate()


def test_an_unknown_name_is_refused():
    with pytest.raises(RecipeError, match="data.name must be one of mnist, fashion_mnist, cifar10"):
        TorchvisionImages("mnst")
