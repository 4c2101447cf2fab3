"""Memory and samples per second where samples stay in files: `python -m benchmarks.reading`.

Features in an npz file, in a folder of npy files and in Arrow's format train with as much memory as a process of its own takes, and as fast
as the same features in memory, with the page cache warm. Folders of images are decoded beside a plain DataLoader on torchvision's
ImageFolder with as many workers. What is compared takes turns.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks import interval, machine, print_table
from plugins.loss.by_task import LossByTask
from recipes.data.huggingface import HuggingFaceData
from recipes.data.image_folder import ImageFolder
from recipes.data.loaders import StepLoader
from recipes.data.npz import NpzData
from recipes.data.source import Source
from recipes.engine.module import RecipeModule
from recipes.models.mlp import MLP

ROOT = Path(__file__).resolve().parents[1]
FEATURES, CLASSES, BATCH = 1024, 10, 128
AT_ONCE = 10_000  # rows that are written together
FIRST = 20  # steps of a turn that do not count
SIDE, SIZE = 256, 64  # pixels of an image in its file, and as it is trained on
LOOK = 0.01  # seconds between two looks at the memory


def rows_of(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows by number: features, and classes that they tell."""
    x = np.random.default_rng(start).standard_normal((stop - start, FEATURES), dtype=np.float32)
    return x, x[:, :CLASSES].argmax(1)


def pieces(rows: int) -> list[tuple[int, int]]:
    """Where those that are written together begin and end."""
    return [(start, min(start + AT_ONCE, rows)) for start in range(0, rows, AT_ONCE)]


def write_npy(folder: Path, rows: int) -> None:
    """A folder with x.npy and y.npy."""
    folder.mkdir()
    stored = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, FEATURES))
    y = np.empty(rows, dtype=np.int64)
    for start, stop in pieces(rows):
        stored[start:stop], y[start:stop] = rows_of(start, stop)
    stored.flush()
    np.save(folder / "y.npy", y)


def write_npz(path: Path, rows: int) -> None:
    """An npz file, by way of a folder."""
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        write_npy(Path(place) / "npy", rows)
        np.savez(path, x=np.load(Path(place) / "npy" / "x.npy", mmap_mode="r"), y=np.load(Path(place) / "npy" / "y.npy"))


def write_arrow(folder: Path, rows: int) -> None:
    """A folder as `save_to_disk` writes it."""
    import datasets
    import pyarrow as pa
    from datasets.arrow_writer import ArrowWriter

    features = datasets.Features(
        {"x": datasets.Sequence(datasets.Value("float32"), length=FEATURES), "y": datasets.Value("int64")}
    )
    folder.mkdir()
    name = "data-00000-of-00001.arrow"
    with ArrowWriter(features=features, path=str(folder / name)) as writer:
        for start, stop in pieces(rows):
            x, y = rows_of(start, stop)
            writer.write_table(
                pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), FEATURES), "y": pa.array(y)})
            )
        writer.finalize()
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:  # what save_to_disk writes beside the rows
        datasets.Dataset.from_dict({"x": rows_of(0, 1)[0], "y": [0]}, features=features).save_to_disk(place)
        for file in ("dataset_info.json", "state.json"):
            (folder / file).write_text((Path(place) / file).read_text())


FORMS: Mapping[str, tuple[Callable[[Path, int], None], str]] = {
    "npy folder": (write_npy, "data=npz data.path={} data.in_memory=false"),
    "npz file": (write_npz, "data=npz data.path={} data.in_memory=false"),
    "Arrow": (write_arrow, "data=huggingface data.path={} data.input=x data.target=y"),
}


def source_of(form: str, path: Path, workers: int = 0) -> Source:
    """The samples where they lie."""
    if form == "Arrow":
        return HuggingFaceData(str(path), input="x", target="y", workers=workers).load()[0]
    return NpzData(str(path), in_memory=False, workers=workers).load()[0]


# ------------------------------------------------------------------ memory


def most_memory(form: str, path: Path, steps: int) -> tuple[float, float]:
    """The most bytes that `python train.py` takes with its test, in all and without what is mapped from files."""
    words = [*FORMS[form][1].format(path).split(), "model=mlp", f"max_steps={steps}", "logger=[]", "trainer.accelerator=cpu"]
    with tempfile.TemporaryDirectory() as place, open(Path(place) / "said", "w+") as said:
        command = [sys.executable, str(ROOT / "train.py"), *words, "hydra.run.dir=run"]
        process = subprocess.Popen(command, cwd=place, stdout=said, stderr=said)
        status, whole, own = Path(f"/proc/{process.pid}/status"), 0.0, 0.0
        while process.poll() is None:
            with suppress(OSError):
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                sizes = {
                    name: 1024.0 * int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmHWM") if name in lines
                }
                own = max(own, sizes.get("RssAnon", 0.0) + sizes.get("RssShmem", 0.0))
                whole = max(whole, sizes.get("VmHWM", 0.0))
            time.sleep(LOOK)
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said.read()[-2000:]}")
    return whole, own


# ------------------------------------------------------------------ samples per second


class Clock(L.Callback):
    """The seconds of a training after its first steps."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: object, batch_idx: int) -> None:
        """Start behind those that do not count."""
        if trainer.global_step == FIRST:
            self.began = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.began


def trained(source: Source, steps: int) -> float:
    """Samples per second of a training by the engine."""
    clock, module = Clock(), RecipeModule(MLP((FEATURES,), CLASSES), LossByTask(), torch.optim.SGD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_steps=FIRST + steps, accelerator="cpu", callbacks=[clock], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, StepLoader(source, BATCH, 0))
    return steps * BATCH / clock.seconds


def measure_arrays(rows: int, rounds: int, steps: int, place: Path) -> list[list[str]]:
    """A row of the table for each form."""
    found = []
    in_memory: Source | None = None
    for form, (write, _) in FORMS.items():
        if form == "Arrow":
            try:
                import datasets  # noqa: F401
            except ImportError:
                print("Arrow is left out: it needs the extra datasets")
                continue
        path = place / ("own.npz" if form == "npz file" else form.replace(" ", "_"))
        write(path, rows)
        whole, own = most_memory(form, path, FIRST + steps)
        if in_memory is None:
            in_memory = NpzData(str(path), in_memory=True).load()[0]
        sides = [in_memory, source_of(form, path), source_of(form, path, workers=1)]
        turns = [[trained(side, steps) for side in sides] for _ in range(rounds + 1)][1:]
        for number, told in enumerate((form, f"{form}, data.workers=1"), 1):
            ratios = [turn[number] / turn[0] for turn in turns]
            rates = [f"{statistics.median(turn[side] for turn in turns):,.0f}" for side in (number, 0)]
            low, high = interval(ratios)
            memory = [f"{own / 1e9:.2f} GB", f"{whole / 1e9:.2f} GB"] if number == 1 else ["", ""]
            found.append([told, *memory, *rates, f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f}"])
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            file.unlink()
    return found


# ------------------------------------------------------------------ images


def write_images(folder: Path, count: int) -> None:
    """JPEG files of smooth colours with some noise, a folder for each class."""
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
        pixels = (smooth + draws.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        place = folder / str(number % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:06}.jpg", quality=90)


def decoded(batches: Callable[[], object]) -> float:
    """Samples per second of an epoch, the start of its workers included."""
    began, samples = time.perf_counter(), 0
    for x, _ in batches():  # type: ignore[attr-defined]
        samples += len(x)
    return samples / (time.perf_counter() - began)


def measure_images(count: int, workers: int, rounds: int, place: Path) -> list[str]:
    """The row of the table."""
    from torchvision import datasets, transforms

    write_images(place / "images", count)
    ours = ImageFolder(str(place / "images"), size=SIZE, in_memory=False, workers=workers).load()[0]
    steps = StepLoader(ours, BATCH, 0)
    transform = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.PILToTensor()])
    plain = DataLoader(
        datasets.ImageFolder(place / "images", transform), BATCH, shuffle=True, drop_last=True, num_workers=workers
    )
    turns = [(decoded(lambda: steps), decoded(lambda: plain)) for _ in range(rounds + 1)][1:]
    ratios = [one / other for one, other in turns]
    low, high = interval(ratios)
    rates = [f"{statistics.median(side):,.0f}" for side in zip(*turns, strict=True)]
    return [f"{workers} workers", *rates, f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f}"]


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--size", type=float, default=3.0, help="GB of features in each form")
    parser.add_argument("--steps", type=int, default=300, help="of a turn that count")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each that count; one more goes before them")
    parser.add_argument("--images", type=int, default=3000, help="files to decode")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="processes that decode")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--folder", help="where files are written, and taken away again; without it, where temporary files are")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    rows = max(4 * BATCH, round(options.size * 1e9 / (4 * FEATURES)))
    where = f"torch {torch.__version__}, {machine()}, {options.threads} threads"
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        os.environ |= {"HF_DATASETS_CACHE": f"{place}/cache", "HF_HUB_OFFLINE": "1"}
        arrays = measure_arrays(rows, options.rounds, options.steps, Path(place))
        print(
            f"{rows:,} rows of {FEATURES} floats, batch {BATCH}, mlp, {options.rounds} rounds of {options.steps} steps, {where}"
        )
        columns = ["", "memory of its own", "with mapped files", "samples/s", "in memory", "ratio", "95 % interval"]
        print_table(columns, arrays)
        images = []
        for workers in options.workers:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                images.append(measure_images(options.images, workers, options.rounds, Path(folder)))
    print(
        f"{options.images:,} images of {SIDE} × {SIDE} pixels decoded to {SIZE} × {SIZE}, batch {BATCH}, {options.rounds} rounds"
    )
    print_table(["", "samples/s", "DataLoader", "ratio", "95 % interval"], images)


if __name__ == "__main__":
    main()
