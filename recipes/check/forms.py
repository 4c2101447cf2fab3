"""What an option does with data of another form than an image with one label: tokens, points, tables, class maps, several labels or numbers."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from plugins.base import RecipeError
from recipes.check.choice import asks_for_run, catalogue, place_of, select
from recipes.check.failing import told
from recipes.check.harness import trained_run, with_companions
from recipes.check.outcome import NotAsked, Wrong, expect, wrong
from recipes.check.weights_file import weights_file
from recipes.config.composing import compose, finish
from recipes.run import train
from recipes.run.build import build_data

IGNORED = 255  # the label of a place that counts for nothing
SMALL = (
    *("data=npz", "data.batch_size=16", "max_steps=3", "optimizer=momentum", "optimizer.lr=0.02", "logger=[]"),
    *("trainer.progress=false", "trainer.accelerator=cpu"),
)
TRANSFORMER = ("model=transformer", "model.width=8", "model.heads=2", "model.layers=1", "model.hidden=8")
SAY_NOTHING_OF_BATCHES = ("callback", "data", "logger", "recipe", "trainer")


@cache
def tokens(samples: int = 90, length: int = 7, vocabulary: int = 11) -> Mapping[str, Any]:
    """Arrays of tokens, their mask, and classes: how many of the tokens that are there are below 4, up to 2."""
    random = np.random.default_rng(0)
    mask = np.arange(length) < random.integers(1, length + 1, (samples, 1))
    found = random.integers(0, vocabulary, (samples, length))
    found[0, 0], mask[:3] = vocabulary - 1, True
    return {"tokens": found, "mask": mask, "y": np.minimum(((found < 4) & mask).sum(1), 2)}


@cache
def steps(samples: int = 80, length: int = 7, features: int = 3) -> Mapping[str, Any]:
    """Arrays of sequences of numbers, their mask, and classes: which feature is the largest on the mean of the steps that are there."""
    random = np.random.default_rng(0)
    mask = np.arange(length) < random.integers(2, length + 1, (samples, 1))
    mask[:3] = True
    found = random.normal(0, 1, (samples, length, features)).astype(np.float32) * mask[..., None]
    return {"features": found, "mask": mask, "y": (found.sum(1) / mask.sum(1, keepdims=True)).argmax(1)}


@cache
def maps(samples: int = 80, size: int = 8, ignored: bool = True) -> Mapping[str, Any]:
    """Arrays of images of bytes and maps of three classes, by how bright a pixel is; some pixels are ignored."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (samples, size, size)).astype(np.uint8)
    y = x.astype(np.int64) // 86
    if ignored:
        y[random.random(y.shape) < 0.2] = IGNORED
        y[4, :, :] = IGNORED
    return {"x": x, "y": y}


@cache
def labels(samples: int = 80, size: int = 8) -> Mapping[str, Any]:
    """Arrays of images of bytes and of which of three labels each has: whether its top, its middle, its bottom is bright."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (samples, size, size)).astype(np.uint8)
    bright = np.stack([x[:, rows].mean((1, 2)) for rows in (slice(0, 3), slice(3, 5), slice(5, size))], 1)
    return {"x": x, "y": bright > np.median(bright, 0)}


@cache
def table(samples: int = 80, columns: int = 6) -> Mapping[str, Any]:
    """Arrays of the columns of a table, of scales of their own, and of three classes."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (samples, columns)).astype(np.float32)
    return {"x": x * 10.0 ** np.arange(-2, columns - 2, dtype=np.float32), "y": x[:, :3].argmax(1)}


@cache
def numbers(samples: int = 80, columns: int = 6, outputs: int = 2) -> Mapping[str, Any]:
    """Arrays of the columns of a table, and of several numbers a row, linear in them and with noise."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (samples, columns)).astype(np.float32)
    noise = random.normal(0, 0.1, (samples, outputs)).astype(np.float32)
    return {"x": x, "y": x @ random.normal(0, 1, (columns, outputs)).astype(np.float32) + noise}


@cache
def points(samples: int = 80, number: int = 24) -> Mapping[str, Any]:
    """Arrays of sets of points in the plane, of which ones there are, and of three classes: how far they lie apart."""
    random = np.random.default_rng(0)
    y = np.arange(samples) % 3
    mask = np.arange(number) < random.integers(3, number + 1, (samples, 1))
    mask[:3] = True
    found = random.uniform(-1, 1, (samples, number, 2)) * (1 + y)[:, None, None]
    return {"points": found.astype(np.float32), "mask": mask, "y": y}


@dataclass(frozen=True)
class Form:
    """A form of data: its arrays, and the words with which a small model is trained on them."""

    arrays: Callable[[], Mapping[str, Any]]
    words: tuple[str, ...]


FORMS = {
    "tokens": Form(
        tokens,
        ("data.input=[tokens,mask]", *TRANSFORMER, "preprocessing=none"),
    ),
    "steps": Form(steps, ("data.input=[features,mask]", *TRANSFORMER)),
    "maps": Form(maps, ("model=fcn", "model.channels=[4,4]", "loss=cross_entropy", f"loss.ignore_index={IGNORED}")),
    "labels": Form(labels, ("model=cnn", "model.channels=[4]", "model.hidden=8")),
    "table": Form(table, ("model=mlp", "model.hidden=[8]")),
    "numbers": Form(numbers, ("model=mlp", "model.hidden=[8]", "loss=mse")),
    "points": Form(
        points,
        ("data.input=[points,mask]", "model=pointnet", "model.channels=[8,16]", "model.hidden=[16]", "preprocessing=none"),
    ),
}


def saved(form: str, folder: Path) -> str:
    """The word that names the data of a form, saved in a folder."""
    path = folder / f"{form}.npz"
    np.savez(path, **FORMS[form].arrays())
    return f"data.path={path}"


def beside_form(names: Sequence[str]) -> list[str]:
    """The options without the data and the model that they are tried with otherwise: a form has its own."""
    return [name for name in names if not name.startswith(("data/", "model/"))]


def words_of(form: str, names: Sequence[str], folder: Path) -> list[str]:
    """What a user types for a form of data and some options, among them what they need."""
    groups = {name.split("/")[0] for name in names}
    words = [word for word in (*SMALL, *FORMS[form].words) if word.partition("=")[0].partition(".")[0] not in groups]
    words = [*words, saved(form, folder), *select(names)]
    runs = [
        f"{place_of(name)}.{parameter}={_weights(words) if name.startswith('init/') else trained_run()}"
        for name in names
        for parameter in asks_for_run(name)
    ]
    return [*words, *runs]


def _weights(words: Sequence[str]) -> Path:
    """What a run with these words may start from."""
    config = finish(catalogue(), compose(words), words)
    data = build_data(config)
    data.setup()
    return weights_file(config, data) or trained_run()


def needed(name: str) -> list[str]:
    """An option with what it needs on any form, the option first."""
    # a model that is made for a form is refused on the digits, by which it is seen what an option needs
    return [name] if name.startswith("model/") else beside_form(with_companions(name))


def outcome_of(form: str, name: str, folder: Path) -> dict[str, Any] | RecipeError:
    """What `outcome` says of an option, with what it needs."""
    try:
        return outcome(form, needed(name), folder)
    except RecipeError as error:
        return error  # it is refused whatever the data


def outcome(form: str, names: Sequence[str], folder: Path) -> dict[str, Any] | RecipeError:
    """The result of a short run of some options on a form of data, or the refusal, which leaves nothing."""
    words, run = words_of(form, names, folder), folder / "run"
    run.mkdir()
    try:
        return trained(finish(catalogue(), compose(words), words), run, words)
    except RecipeError as error:
        expect(not run.exists() or not any(run.iterdir()), "it is refused, and something is left in the folder of the run")
        return error


def trained(config: dict[str, Any], run: Path, words: Sequence[str]) -> dict[str, Any]:
    """The result of the run that a user would start, in a folder; nothing is printed."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return train.train(config, run, words)


def expect_finished(result: Mapping[str, Any]) -> None:
    """The run has taken its steps, in each of its phases, and measured numbers."""
    took = result["steps"] > 0 and result["steps"] % 3 == 0
    expect(result["status"] == "finished" and took, f"the run is {result['status']} after {result['steps']} steps")
    expect(all(math.isfinite(value) for value in result["metrics"].values()), f"measures {result['metrics']}")
    expect(0 <= result["metrics"].get("test/acc", 0) <= 1, "an accuracy is outside of [0, 1]")


def expect_told(name: str, refusal: RecipeError) -> None:
    """The refusal is a line that names the option or its group, or in full what the option needs."""
    line = str(refusal).lower().replace("_", "")
    try:
        names = needed(name)
    except RecipeError:
        names = []
    known = any(word.replace("_", "") in line for word in (*name.split("/"), *names))
    expect("\n" not in line and known, f"is refused without its name: {refusal}")


def other_forms(name: str, folder: Path) -> None:
    """An option trains on data of each other form, or is refused in a line before the first batch."""
    if name.split("/")[0] in SAY_NOTHING_OF_BATCHES:
        raise NotAsked("says nothing of a batch")
    for form in FORMS:
        place = folder / form
        place.mkdir(parents=True)
        try:
            if isinstance(found := outcome_of(form, name, place), RecipeError):
                expect_told(name, found)
            else:
                expect_finished(found)
        except Wrong as error:
            wrong(f"on {form}: {error}")
        except Exception as error:
            raise Wrong(f"on {form}: {told(name, error)}") from error
