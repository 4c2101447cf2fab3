"""Tensors of which each process keeps a part, as under trainer=fsdp; each function leaves other tensors as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_shard(value: object) -> bool:
    """Whether this process keeps a part of a tensor: one of torch's `DTensor`s, which is not imported for this."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def whole(value: Any) -> Any:
    """The whole tensor; all processes must ask for it, in the same order."""
    return value.full_tensor() if is_shard(value) else value


def part(value: Any) -> Any:
    """The part that this process keeps; without gradients, writing into it changes the tensor."""
    return value.to_local() if is_shard(value) else value


def parts(values: Iterable[Any]) -> list[Any]:
    """The parts that this process keeps, for what is done number by number."""
    return [part(value) for value in values]


def kept_like(value: Tensor, weight: Tensor) -> Tensor:
    """A value of a weight's shape as that weight is kept: on its device and, where the weight is cut up, cut up alike."""
    if is_shard(value) or not is_shard(weight):
        return value.to(weight.device)
    kept: Any = torch.empty_like(weight, dtype=value.dtype)
    mesh = kept.device_mesh
    pieces = value.chunk(mesh.size())
    if mesh.get_local_rank() < len(pieces):  # a short tensor has no piece for the last processes
        kept.to_local().copy_(pieces[mesh.get_local_rank()])
    return kept


def summed(value: Tensor, like: Tensor) -> Tensor:
    """The sum, over all processes that keep a part of `like`, of what each has added up over its own; all must ask for it, in the same order."""
    if is_shard(like):
        kept: Any = like
        dist.all_reduce(value, group=kept.device_mesh.get_group())
    return value


def norms(values: Sequence[Tensor]) -> Tensor:
    """‖·‖₂ of each tensor as a whole, (tensors,), of at least one; all processes must ask for it, in the same order."""
    own = torch.stack(torch._foreach_norm(parts(values)))
    return summed(own.square(), values[0]).sqrt() if is_shard(values[0]) else own


def product(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Σ a · b over all numbers of pairs of tensors as a whole, of at least one pair; all processes must ask for it, in the same order."""
    pairs = zip(parts(first), parts(second), strict=True)
    return summed(torch.stack([torch.vdot(a.flatten(), b.flatten()).real for a, b in pairs]).sum(), second[0])
