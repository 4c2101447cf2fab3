"""The predictions of a command: written to a file, and told in a few lines."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from plugins.base import RecipeError, Task
from recipes.config.catalogue import Catalogue
from recipes.data.targets import describe
from recipes.run.predictor import Prediction, Predictor
from recipes.run.terminal import print_lines
from recipes.store.files import write_whole

ENDINGS = (".csv", ".npz")
ELSEWHERE = ("path", "root", "name", "input")  # keys of `data` that say which data it is


def predict(catalogue: Catalogue, folders: Sequence[Path], words: Sequence[str], output: Path) -> Prediction:
    """Predict with one run or several, and leave the predictions in a file.

    Args:
        catalogue: of the options.
        folders: of the runs.
        words: that change data, inference or device.
        output: a file NAME.csv or NAME.npz.

    Raises:
        RecipeError: what is predicted does not fit the runs or the file.
    """
    predictor = Predictor(folders, words, catalogue)
    expect_output(output, predictor.tasks)
    elsewhere = any(word.partition("=")[0] in ("data", *(f"data.{name}" for name in ELSEWHERE)) for word in words)
    found = predictor.predict_data(elsewhere)
    content = as_csv(found) if output.suffix == ".csv" else as_npz(found)
    write_whole(output, lambda file: file.write(content))
    members = f", mean of {len(folders)} runs" if len(folders) > 1 else ""
    which = predictor.members[0].which
    print_lines(Console(), *told(found), f"samples  {len(found.ids):,}: {which}{members}", f"output   {output}")
    return found


def expect_output(output: Path, tasks: Sequence[Task]) -> None:
    """Refuse a file that could not hold the predictions, before anything is computed."""
    if output.suffix not in ENDINGS:
        raise RecipeError(f"output={output}: expected a file that ends with {' or '.join(ENDINGS)}")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise RecipeError(f"output={output}: expected a file in a folder that there is")
    if output.suffix == ".csv" and any(task.shape for task in tasks):
        raise RecipeError(f"output={output}: a class for each place of a sample fits no table; type output={output.stem}.npz")


def columns(task: Task) -> list[str]:
    """The names of a target's columns."""
    head = task.name or "y"
    each = task.names or range(task.outputs)
    if task.kind == "classification":
        return [head, *(f"probability_{head}_{name}" for name in each)]
    if task.kind == "multilabel":
        return [*(f"{head}_{name}" for name in each), *(f"probability_{head}_{name}" for name in each)]
    numbers = task.outputs // max(1, len(task.quantiles))
    names = [head] if numbers == 1 else [f"{head}_{number}" for number in range(numbers)]
    return [f"{name}_q{level:g}" for name in names for level in task.quantiles] or names


def rows(found: Prediction) -> Iterator[list[Any]]:
    """A row for each sample, its numbers with the nine digits that tell each 32-bit float from all others."""
    parts: list[list[list[Any]]] = []
    for task in found.tasks:
        numbers = found.outputs[task.name].tolist()
        if task.kind == "regression":
            parts.append(numbers)
            continue
        one = task.kind == "classification"
        heads = [[label] for label in found.labels(task.name)] if one else found.there(task.name).int().tolist()
        parts.append([[*head, *values] for head, values in zip(heads, numbers, strict=True)])
    for name, *cells in zip(found.ids, *parts, strict=True):
        yield [name, *(f"{cell:.9g}" if isinstance(cell, float) else cell for part in cells for cell in part)]


def as_csv(found: Prediction) -> bytes:
    """A table with a row for each sample: its name, and for each target what was predicted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *(name for task in found.tasks for name in columns(task))])
    writer.writerows(rows(found))
    return text.getvalue().encode()


def as_npz(found: Prediction) -> bytes:
    """Arrays: `ids`, for each target TASK its most probable class, its labels or numbers, `probability_TASK`, the names `classes_TASK`."""
    arrays: dict[str, np.ndarray] = {"ids": np.array(found.ids)}
    for task in found.tasks:
        name, values = task.name or "y", found.outputs[task.name].numpy()
        if task.kind == "regression":
            arrays[name] = values
            continue
        decided = values.argmax(1) if task.kind == "classification" else found.there(task.name).numpy()
        arrays |= {name: decided, f"probability_{name}": values}
        if task.names:
            arrays[f"classes_{name}"] = np.array(task.names)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def told(found: Prediction) -> Iterator[str]:
    """What was predicted, in a line for each target."""
    for task in found.tasks:
        values = found.outputs[task.name]
        if task.kind == "classification":
            best = values.argmax(1).flatten().tolist()
            most = ", ".join(
                f"{task.names[label] if task.names else label} {count:,}" for label, count in Counter(best).most_common(5)
            )
            text = f"{describe(task)}, most often {most}"
        elif task.kind == "multilabel":
            counts = Counter(dict(zip(task.names or range(task.outputs), found.there(task.name).sum(0).tolist(), strict=True)))
            text = f"{describe(task)}; {', '.join(f'{label} {count:,}' for label, count in counts.most_common(5))}"
        else:
            text = f"{describe(task)}, mean {float(values.double().mean()):.4g}, from {float(values.min()):.4g} to {float(values.max()):.4g}"
        yield f"target {task.name or 'y'}: {text}"
