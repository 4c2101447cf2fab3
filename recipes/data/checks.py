"""What a data set gives, whoever made it: looked at once, before it is split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from plugins.base import RecipeError
from recipes.config.errors import of_own_code, own_place
from recipes.data.arrays import channels_last
from recipes.data.drawing import drawn_alike
from recipes.data.numbers import is_image_of_bytes
from recipes.data.samples import Samples
from recipes.data.source import BESIDE, Source
from recipes.data.split import Split


def of_load(load: Callable[[], Any], kind: type, seed: int) -> tuple[Source, Source | None]:
    """What the method `load` of a kind of data returns; what goes wrong in a user's own code is told with its line.

    Args:
        load: the method.
        kind: the class that defines it.
        seed: of what it draws.
    """
    name = f"{kind.__name__}.load()"
    try:
        with drawn_alike(seed):
            found: Any = load()
    except (RecipeError, MemoryError):
        raise
    except Exception as error:
        if not own_place(error) or kind.__module__.startswith("recipes."):
            raise
        raise RecipeError(f"{name} fails: {of_own_code(error)}") from None
    if not (
        isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Source) and isinstance(found[1], Source | None)
    ):
        raise RecipeError(f"{name} must return the samples, a Source such as Split, and a test split or None")
    for source in found if found[1] is not None else found[:1]:
        check_source(source, source.name if isinstance(source, Samples) else name)
    return found


def check_source(source: Source, name: str) -> None:
    """Refuse samples without a target each, targets that are NaN or infinite, and images whose channels are last.

    Args:
        source: all of them.
        name: who gives them, for the error.
    """
    if not source.labels:
        raise RecipeError(f'{name} has no target: give a dict with one tensor a task, {{"": y}} for a single one')
    _expect_lengths(source, name)
    for task, target in source.labels.items():
        if target.is_floating_point() and not bool((finite := target.isfinite()).all()):
            bad = (~finite.flatten(1).all(1) if finite.ndim > 1 else ~finite).nonzero()[:, 0].tolist()
            raise RecipeError(
                f"{name}: target {task or 'y'} is NaN or infinite in {len(bad)} of {len(target)} samples, such as number {bad[0]} (from 0): "
                f"leave these samples out"
            )
    for x in _by_name(source.between(0, 1)[0]).values() if len(source) else ():
        if is_image_of_bytes(x) and channels_last(tuple(x.shape)):
            height, width, channels = x.shape[1:]
            raise RecipeError(
                f"{name}: images of {height} × {width} bytes have their {channels} channels last: give them as (channels, height, width), "
                f"image.permute(2, 0, 1), or as floats where they are no images"
            )


def _by_name(x: Any) -> dict[str, Any]:
    return x if isinstance(x, dict) else {"": x}


def _expect_lengths(source: Source, name: str) -> None:
    """Refuse what has not one entry for each sample."""
    inputs = _by_name(source.x) if isinstance(source, Split) else {}
    given: dict[str, Any] = {f"input {each}".strip(): x for each, x in inputs.items()}
    given |= {f"target {task or 'y'}": target for task, target in source.labels.items()}
    given |= {each: values for each in BESIDE if (values := getattr(source, each)) is not None}
    for what, values in given.items():
        if not isinstance(values, Tensor):
            raise RecipeError(f"{name}: {what} must be a tensor, got a {type(values).__name__}")
        if values.shape[:1] != (len(source),):
            entries = f"{len(values)} entries" if values.ndim else "one number"
            raise RecipeError(f"{name}: {what} has {entries}, and there are {len(source)} samples: give one entry for each")
