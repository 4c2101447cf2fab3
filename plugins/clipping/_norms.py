"""The norm of a gradient over all parameters together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from plugins.shards import whole

if TYPE_CHECKING:
    from jaxtyping import Float


def with_gradient(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that have a gradient."""
    return [parameter for parameter in parameters if parameter.grad is not None]


def total_norm(parameters: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """‖g‖₂ of the gradients of these parameters, all of which have one."""
    norm: Tensor = whole(get_total_norm([parameter.grad for parameter in parameters]))  # type: ignore[misc]
    return norm
