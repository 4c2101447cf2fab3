"""Opening data sets with Hugging Face's library, without its bars and lines, and its errors as one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plugins.base import RecipeError
from recipes.config.errors import first_line
from recipes.data.rows import PARTS, TEST, TRAIN, VALIDATION

FORMATS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
SAVED = ("dataset_dict.json", "state.json")  # one of them is in a folder that `save_to_disk` has written
PACKAGE = 'data=huggingface needs a further package: pip install -e ".[datasets]"'


def opened(path: Any, config: str | None) -> dict[str, Any]:
    """The splits of a data set by name, memory-mapped.

    Args:
        path: a folder, a file, a name on the hub, or what the library has opened already.
        config: name of a part of a data set on the hub.

    Raises:
        RecipeError: the library is not installed, nothing is there, nobody answers, it cannot be read, it is a stream.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise RecipeError(PACKAGE) from None
    if isinstance(path, (str, Path)):
        with quiet(datasets):
            path = _read(datasets, str(path), config)
    found = {"": path} if isinstance(path, (datasets.Dataset, datasets.IterableDataset)) else path
    if isinstance(found, Mapping) and any(isinstance(each, datasets.IterableDataset) for each in found.values()):
        raise RecipeError(
            "data.path is a streaming data set, whose rows cannot be reached by their number: the order of samples is drawn by it, so that "
            "runs can be compared and resumed; load it with streaming=False"
        )
    if not isinstance(found, Mapping) or not all(isinstance(each, datasets.Dataset) for each in found.values()):
        raise RecipeError(
            f"data.path must be a folder, a file, a name on the hub, a Dataset or a DatasetDict; got a {type(path).__name__}"
        )
    return dict(found)


def _read(datasets: Any, path: str, config: str | None) -> Any:
    place = Path(path)
    beside = {} if config is None else {"name": config}
    try:
        if place.is_dir():
            if any((place / name).is_file() for name in SAVED):
                return datasets.load_from_disk(path)
            return datasets.load_dataset(path, **beside)
        if place.is_file():
            if (kind := FORMATS.get(place.suffix.lower())) is None:
                raise RecipeError(f"{path} is none of the files that are read here: {', '.join(FORMATS)}")
            return datasets.load_dataset(kind, data_files=path, **beside)
        if (
            place.exists()
            or place.is_absolute()
            or path.startswith((".", "~"))
            or path.count("/") != 1
            or place.suffix in FORMATS
        ):
            raise RecipeError(f"no folder or file {place.absolute()}: data.path must be one, or a name on the hub, OWNER/NAME")
        return datasets.load_dataset(path, **beside)
    except (RecipeError, MemoryError):
        raise
    except ConnectionError as error:
        raise RecipeError(
            f"data.path={path} is no folder or file here, and the hub does not answer ({first_line(error)}): type a folder or a file, or "
            f"connect to the network"
        ) from None
    except Exception as error:  # what a damaged file makes the libraries of its format raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, ValueError) and lines and "config" in lines[0].lower():
            raise RecipeError(f"data.config: {path}: {' '.join(lines[:2])}") from None
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__ else error
        raise RecipeError(f"data.path={path} cannot be read: {first_line(cause)}") from None


def parts_of(found: Mapping[str, Any], where: str) -> tuple[Any, Any, Any, list[str]]:
    """The splits to train on, validate and test with, None where there is none, and the names of those that are left out.

    Without a test split, validation is the test split: the validation is then a share of what is trained on. The only split of a data
    set is trained on, whatever its name is.

    Args:
        found: the splits by name.
        where: the data set's place, for errors.
    """
    by_part: dict[int, Any] = {}
    left_out = []
    if len(found) == 1:
        return next(iter(found.values())), None, None, []
    for name, table in found.items():
        part = PARTS.get(name.lower())
        if part is None:
            left_out.append(name)
        elif part in by_part:
            raise RecipeError(f"{where} has two splits for one purpose among {', '.join(found)}: leave one out")
        else:
            by_part[part] = table
    if TRAIN not in by_part:
        raise RecipeError(
            f"{where} has the splits {', '.join(found) or 'none'}: expected train, and perhaps validation and test"
        )
    if TEST not in by_part:
        return by_part[TRAIN], None, by_part.get(VALIDATION), left_out
    return by_part[TRAIN], by_part.get(VALIDATION), by_part[TEST], left_out


@contextmanager
def quiet(datasets: Any) -> Iterator[None]:
    """Keep the library from drawing bars and writing lines: what goes wrong is told in one."""
    shown = datasets.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()
