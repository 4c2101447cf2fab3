"""Bring Fashion-MNIST to a folder from Debian's package of it, for tests on machines that reach Debian's packages only.

    python tests/fetch_data.py ROOT        writes ROOT/fashion_mnist.npz; one that is there already is left alone

Elsewhere `python train.py data=fashion_mnist data.root=ROOT data.download=true` gets the same data from its own site.
"""

import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PACKAGE = "dataset-fashion-mnist"
FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """An array from a gzipped idx file: a head of 4 + 4 × dimensions bytes, then the bytes."""
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def main(root: Path) -> None:
    """Unpack the package into a temporary folder and write its arrays as one npz file."""
    target = root / "fashion_mnist.npz"
    if target.exists():
        print(f"{target} is there")
        return
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", str(next(Path(folder).glob("*.deb"))), folder], check=True)
        found = next(Path(folder).rglob("train-images-idx3-ubyte.gz")).parent
        arrays = {}
        for split, name in FILES.items():
            arrays[f"x_{split}"] = read_idx(found / f"{name}-images-idx3-ubyte.gz")
            arrays[f"y_{split}"] = read_idx(found / f"{name}-labels-idx1-ubyte.gz")
    assert arrays["x_train"].shape == (60000, 28, 28)
    assert np.bincount(arrays["y_test"]).tolist() == [1000] * 10
    part = target.with_name("fashion_mnist.part.npz")
    np.savez(part, **arrays)
    part.rename(target)
    print(f"{target} written")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
