"""Inputs that are one tensor, or several by name, such as tokens and their mask; both are treated by the same words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import Tensor, nn

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """One of several inputs: the shape of a sample, the type of its numbers, and the ends of them where they are whole.

    `largest` and `smallest` are those of all splits; None where numbers are not whole, or it is not known.
    """

    shape: tuple[int, ...]
    kind: str  # "float32" | "int64" | "bool"
    largest: int | None = None
    smallest: int | None = None

    def blank(self, samples: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Samples of nothing: zeros, or ones where numbers are whole, so that a mask leaves nothing out."""
        if self.kind.startswith(("float", "bfloat")):
            return torch.zeros(samples, *self.shape, device=device, dtype=dtype)
        one = 1 if self.largest is None else min(1, self.largest)  # a token that there is
        return torch.full((samples, *self.shape), one, device=device, dtype=getattr(torch, self.kind))


Shape = tuple[int, ...] | dict[str, Entry]  # of a sample


def each(x: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs with every tensor changed in the same way."""
    return change(x) if isinstance(x, Tensor) else {name: change(value) for name, value in x.items()}


def some(x: Inputs) -> Tensor:
    """One of the tensors: all have as many samples, on one device."""
    return x if isinstance(x, Tensor) else next(iter(x.values()))


def pieces_of(x: Inputs, parts: int) -> Sequence[Inputs]:
    """The inputs cut into so many parts of equal size, as `Tensor.chunk` does."""
    if isinstance(x, Tensor):
        return x.chunk(parts)
    return [dict(zip(x, values, strict=True)) for values in zip(*(value.chunk(parts) for value in x.values()), strict=True)]


@overload
def concatenated(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]: ...


@overload
def concatenated(parts: Sequence[Inputs]) -> Inputs: ...


def concatenated(parts: Sequence[Any]) -> Any:
    """Samples one behind the other: one tensor of several, or of each name one, also of targets and outputs by task."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def shape_of(x: Inputs) -> Shape:
    """The shape of a sample; of several inputs their entries."""
    if isinstance(x, Tensor):
        return tuple(x.shape[1:])
    return {name: entry_of(value) for name, value in x.items()}


def entry_of(x: Tensor) -> Entry:
    """What there is to know of one of several inputs."""
    shape, kind = tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")
    if x.is_floating_point() or x.dtype == torch.bool or not x.numel():
        return Entry(shape, kind)
    low, high = x.aminmax()
    return Entry(shape, kind, int(high), int(low))


def numbers_in(shape: Shape | Sequence[int]) -> int:
    """How many numbers a sample has."""
    return sum(math.prod(entry.shape) for entry in shape.values()) if isinstance(shape, Mapping) else math.prod(shape)


def blank(shape: Shape | Sequence[int], samples: int, device: torch.device | str = "cpu", dtype: Any = None) -> Inputs:
    """Samples of nothing, of a shape.

    Args:
        shape: of a sample.
        samples: how many.
        device: where they are.
        dtype: of floats; None: torch's own.
    """
    if isinstance(shape, Mapping):
        place, kind = torch.device(device), dtype or torch.get_default_dtype()
        return {name: entry.blank(samples, place, kind) for name, entry in shape.items()}
    return torch.zeros(samples, *shape, device=device, dtype=dtype)


def plain(shape: Shape) -> Any:
    """A shape as checkpoints keep it."""
    if isinstance(shape, Mapping):
        return {name: [list(entry.shape), entry.kind, entry.largest, entry.smallest] for name, entry in shape.items()}
    return list(shape)


def from_plain(kept: Any) -> Shape:
    """What `plain` gave."""
    if isinstance(kept, Mapping):
        return {name: Entry(tuple(shape), *further) for name, (shape, *further) in kept.items()}
    return tuple(kept)


def unknown_ends(shape: Shape) -> Shape:
    """A shape of which it is not known how large whole numbers become."""
    return (
        {name: replace(entry, largest=None, smallest=None) for name, entry in shape.items()}
        if isinstance(shape, dict)
        else shape
    )


def alike(one: Shape, other: Shape) -> bool:
    """Whether samples have the same shape and types, whatever their numbers are."""
    return unknown_ends(one) == unknown_ends(other)


def fits(given: Shape, known: Shape, any_length: bool = False) -> bool:
    """Whether samples of a shape are like those that a model knows, with no larger whole numbers.

    Args:
        given: shape of a sample.
        known: that of the model's samples.
        any_length: whether the model takes sequences of any length: inputs by name may have more or fewer places, all as many.
    """
    if not (isinstance(given, Mapping) and isinstance(known, Mapping)):
        return given == known
    if any_length and (lengths := {entry.shape[0] for entry in known.values() if entry.shape}) and len(lengths) == 1:
        now = {entry.shape[0] for entry in given.values() if entry.shape}
        given = _of_length(given, *lengths) if len(now) == 1 else given
    return alike(given, known) and all(_within(entry, known[name]) for name, entry in given.items())


def _of_length(shape: Mapping[str, Entry], length: int) -> dict[str, Entry]:
    return {name: replace(entry, shape=(length, *entry.shape[1:])) if entry.shape else entry for name, entry in shape.items()}


def _within(entry: Entry, known: Entry) -> bool:
    if entry.largest is None or entry.smallest is None or known.largest is None or known.smallest is None:
        return True
    return min(0, known.smallest) <= entry.smallest and entry.largest <= known.largest


def joined(first: dict[str, Entry], others: Iterable[Any]) -> dict[str, Entry]:
    """The entries of several splits as one, with the largest whole numbers of all."""
    found = dict(first)
    for other in others:
        for name, entry in found.items():
            high = [end for end in (entry.largest, other[name].largest) if end is not None]
            low = [end for end in (entry.smallest, other[name].smallest) if end is not None]
            found[name] = replace(entry, largest=max(high, default=None), smallest=min(low, default=None))
    return found


def described(shape: Shape) -> str:
    """A shape in words."""
    if not isinstance(shape, Mapping):
        return str(shape)
    return ", ".join(
        f"{name} {entry.shape} of {entry.kind}"
        + (f" from {entry.smallest} to {entry.largest}" if entry.largest is not None else "")
        for name, entry in shape.items()
    )


def mask_of(shape: Mapping[str, Entry], name: str, model: nn.Module | None = None) -> str | None:
    """The input that tells which places of another one are there: "mask", or the only one with a truth value for each.

    Args:
        shape: of a sample.
        name: of the other one.
        model: that may know better: one of its parts has the name of a mask as its attribute `mask`.
    """
    places = shape[name].shape[:1]
    if not places:
        return None
    said = [getattr(part, "mask", None) for part in ([] if model is None else model.modules())]
    for mask in (*(each for each in said if isinstance(each, str)), "mask"):
        if mask in shape and shape[mask].shape == places and name != mask:
            return mask
    found = [other for other, entry in shape.items() if entry.kind == "bool" and entry.shape == places]
    return found[0] if len(found) == 1 else None


def masks_in(shape: Shape | Mapping[str, Entry], model: nn.Module | None = None) -> list[str]:
    """The inputs that are masks of others, of truth values or of any numbers, above 0 at the places that there are; of one tensor none."""
    if not isinstance(shape, Mapping):
        return []
    return list(dict.fromkeys(mask for name in shape if (mask := mask_of(shape, name, model)) is not None))


def quantities(shape: Mapping[str, Entry], model: nn.Module | None = None) -> list[str]:
    """The inputs that are numbers: floats, and images of bytes, but for masks."""
    masks = masks_in(shape, model)
    return [
        name
        for name, entry in shape.items()
        if name not in masks and (entry.kind.startswith("float") or (entry.kind == "uint8" and len(entry.shape) == 3))
    ]
