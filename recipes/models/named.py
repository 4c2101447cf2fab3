"""What models share whose inputs may be a mapping of several by name, such as a sequence and its mask."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from plugins.base import RecipeError, expect_count
from plugins.inputs import Entry


def find_places(shape: Mapping[str, Entry], model: str, key: str, name: str | None, mask: str | None) -> tuple[str, str | None]:
    """The names of the input that has places, such as steps or points, and of the mask over them; None where there is no mask.

    Args:
        shape: of a sample: an entry for each of the inputs.
        model: the option, for the errors.
        key: the parameter that names the input.
        name: of the input; None: the only one beside the mask.
        mask: its name; None: "mask", if there is one.

    Raises:
        RecipeError: names that are not there, inputs without a use, a mask that is not one number for each place.
    """
    for parameter, given in ((key, name), ("mask", mask)):
        if given is not None and given not in shape:
            raise RecipeError(f"model.{parameter} must be the name of an input, one of {', '.join(shape)}; got {given}")
    mask = mask if mask is not None else "mask" if "mask" in shape else None
    others = [other for other in shape if other != mask]
    if name is None and len(others) != 1:
        raise RecipeError(f"model.{key} must name one of the inputs {', '.join(shape)}: type model.{key}=NAME")
    name = others[0] if name is None else name
    if unused := [other for other in others if other != name]:
        raise RecipeError(
            f"model={model} takes one input and its mask, and has no use for {', '.join(unused)}: leave it out of data.input"
        )
    if mask is not None and shape[mask].shape != shape[name].shape[:1]:
        raise RecipeError(
            f"model.mask={mask} must have one number for each place of {name}, {shape[name].shape[:1]} a sample, got {shape[mask].shape}"
        )
    return name, mask


def takes_any_length(model: nn.Module) -> bool:
    """Whether a model, with whatever is around it, takes sequences of other lengths than it was trained on: one says so by this name."""
    return any(getattr(part, "takes_any_length", False) for part in model.modules())


def vocabulary_of(given: int | None, entry: Entry) -> int:
    """The number of different tokens."""
    largest, least = entry.largest, entry.smallest
    if least is not None and least < 0:
        raise RecipeError(f"tokens must be 0, 1, …; the smallest is {least}: count them from 0, and tell of padding by a mask")
    if given is None:
        if largest is None:
            raise RecipeError(
                "model.vocabulary must be given where the data does not tell the largest token: type model.vocabulary=N"
            )
        return largest + 1
    expect_count("model.vocabulary", given)
    if largest is not None and largest >= given:
        raise RecipeError(
            f"model.vocabulary={given} is too small for the token {largest}: type model.vocabulary={largest + 1} or more"
        )
    return given


def expect_no_vocabulary(given: int | None, entry: Entry) -> None:
    """Refuse a number of different tokens where there are none."""
    if given is not None:
        raise RecipeError(
            f"model.vocabulary={given} is the number of different tokens, and the data has {entry.kind} {entry.shape}: leave it out"
        )
