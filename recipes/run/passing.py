"""Whether samples pass through a model, and come out as targets ask; told before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from plugins.errors import RecipeError
from plugins.inputs import Entry, Shape, blank, described, fits
from recipes.config.errors import first_line, of_own_code, own_place
from recipes.data.images import with_channels
from recipes.models.named import takes_any_length


def expect_takes_named_inputs(kind: type, shape: Mapping[str, Entry]) -> None:
    """Refuse a model that is made for one tensor; one that takes a dict of them says so by `takes_named_inputs`."""
    if not getattr(kind, "takes_named_inputs", False):
        raise RecipeError(
            f"model: {kind.__name__} takes inputs that are one tensor, and these are several ({', '.join(shape)}): take model=transformer or model=rnn "
            f"for tokens, model=pointnet or model=dgcnn for points, or name one array in data.input; a class of your own that takes a dict says "
            f"so by takes_named_inputs = True"
        )


def expect_shape(whose: str, model: nn.Module, known: Shape, given: Shape, asked: Mapping[str, Any]) -> None:
    """Refuse samples of another shape than those of the training, of any length where the model takes that.

    Args:
        whose: the run, in words.
        model: that it has trained.
        known: the shape of its samples.
        given: that of these.
        asked: the parameters of the data; none where they are no files.
    """
    if not fits(given, known, takes_any_length(model)):
        raise RecipeError(
            f"{whose} was trained on samples of shape {described(known)}, the data has {described(given)}"
            f"{with_channels(given, known, asked)}"
        )


def expect_passes(model: nn.Module, shape: Shape, outputs: int, places: tuple[int, ...] = ()) -> None:
    """Refuse a model that takes no samples of a shape, or returns others than (samples, outputs, *places); it is in evaluation mode then."""
    model.eval()
    try:
        with torch.no_grad():
            result = model(blank(shape, 2))
    except (RecipeError, MemoryError):
        raise
    except Exception as error:
        why = of_own_code(error) if own_place(error) else f"they may be too small: {first_line(error)}"
        raise RecipeError(f"model: samples of shape {described(shape)} do not pass through it, {why}") from None
    if not isinstance(result, torch.Tensor) or result.shape != (2, outputs, *places):
        got = _in_words(result.shape[1:]) if isinstance(result, torch.Tensor) else type(result).__name__
        fix = "; for one label a sample give whole numbers (samples,), for a label at each place take a model that has outputs there, such as model=fcn"
        ends = fix if places or (isinstance(result, torch.Tensor) and result.ndim > 2) else ""
        raise RecipeError(f"model: expected outputs of shape {_in_words((outputs, *places))}, got {got}{ends}")


def _in_words(sizes: tuple[int, ...]) -> str:
    return f"({', '.join(['samples', *map(str, sizes)])})"
