"""The mathematics of attacks: steps that raise a loss, and the ball they stay in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import declare, derive_seed

if TYPE_CHECKING:
    from jaxtyping import Float

End = Tensor | float
Bounds = tuple[End, End] | None  # the range of valid inputs; an end of shape (channels, 1, 1) is one for each channel
Loss = Callable[[Tensor], Tensor]  # inputs (samples, ...) to a scalar

NORMS = ("linf", "l2")
EPS = declare.number(
    "size of the perturbation in the raw range", default=0.031373, least=0, note="8/255 of the pixel range", off=0.0
)
NORM = declare.choice(*NORMS, default="linf", more="In which ε is measured, for each sample.")
BLOCK = 64  # random starts that are drawn together
SCALE = 2.0**8  # of losses in float16 precision, in which the slopes of confident predictions would be 0


def input_gradient(loss: Loss, x: Float[Tensor, " samples *shape"]) -> Float[Tensor, " samples *shape"]:
    """∇ₓ loss(x), up to a power of two, leaving the gradients of parameters alone."""
    x, kind = x.detach().requires_grad_(), x.device.type
    if not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) != torch.float16:
        return torch.autograd.grad(loss(x), x)[0]
    return torch.autograd.grad(loss(x) * SCALE, x)[0].nan_to_num(0.0)  # it may overflow


def sample_norm(x: Float[Tensor, " samples *shape"]) -> Float[Tensor, "samples ..."]:
    """The Euclidean norm of each sample, shaped (samples, 1, ...)."""
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def steepest(gradient: Float[Tensor, " samples *shape"], norm: str) -> Float[Tensor, " samples *shape"]:
    """The direction of length 1 in which a loss rises fastest: the signs (linf), or the gradient over its norm (l2)."""
    if norm == "linf":
        return gradient.sign()
    # A sample classified with great confidence has a tiny gradient, whose squares would vanish: its largest entry goes first.
    largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    scaled = gradient / largest.view(-1, *[1] * (gradient.ndim - 1))
    return scaled / sample_norm(scaled).clamp_min(1)


def clip(
    moved: Float[Tensor, " samples *shape"], x: Float[Tensor, " samples *shape"], bounds: Bounds
) -> Float[Tensor, " samples *shape"]:
    """Values that have left the range of valid inputs put onto its border; what x itself has outside goes no further out."""
    if bounds is None:
        return moved
    low, high = bounds
    return torch.clamp(moved, x.clamp(max=low), x.clamp(min=high))


def random_start(
    x: Float[Tensor, " samples *shape"], eps: float, norm: str, generator: torch.Generator
) -> Float[Tensor, " samples *shape"]:
    """A random perturbation: uniform in the cube (linf); in a random direction, with a length uniform in [0, ε] (l2)."""
    if norm == "linf":
        return torch.empty_like(x).uniform_(-eps, eps, generator=generator)
    direction = steepest(torch.empty_like(x).normal_(generator=generator), norm)
    length = torch.rand(len(x), device=x.device, dtype=x.dtype, generator=generator)
    return eps * length.view(-1, *[1] * (x.ndim - 1)) * direction


def random_starts(
    x: Float[Tensor, " samples *shape"], eps: float, norm: str, positions: range, seed: int
) -> Float[Tensor, " samples *shape"]:
    """A random start for each sample, a function of its place in the split alone: the same in whatever pieces samples come.

    They are drawn in blocks, each from a generator of its own, of which those of `positions` (samples,) are taken.
    """
    first = positions.start // BLOCK
    blocks = range(first, -(-positions.stop // BLOCK)) if len(positions) else range(0)
    drawn = [
        random_start(
            x.new_zeros(BLOCK, *x.shape[1:]), eps, norm, torch.Generator(x.device).manual_seed(derive_seed(seed, block))
        )
        for block in blocks
    ]
    whole = torch.cat(drawn) if drawn else torch.zeros_like(x)
    return whole[positions.start - first * BLOCK : positions.stop - first * BLOCK : positions.step]


def projection(x: Tensor, eps: float, norm: str, bounds: Bounds) -> Callable[[Tensor], Tensor]:
    """The map onto the ball of radius ε around x and the range of valid inputs, exact: rounding never leaves the ball."""
    if norm == "linf":
        radius = torch.tensor(eps, dtype=x.dtype)
        if radius.item() > eps:
            radius = torch.nextafter(radius, torch.zeros_like(radius))
        low, high = x - radius.item(), x + radius.item()
        low, high = clip(torch.nextafter(low, x), x, bounds), clip(torch.nextafter(high, x), x, bounds)
        return lambda moved: torch.clamp(moved, low, high)
    inner, wide = eps * (1 - 1e-5), torch.promote_types(x.dtype, torch.float32)
    centre = x.to(wide)

    def onto_sphere(moved: Tensor) -> Tensor:
        delta = moved.to(wide) - centre
        aim = centre + delta * (inner / sample_norm(delta).clamp_min(torch.finfo(wide).tiny)).clamp_max(1)
        found = aim.to(x.dtype)
        if x.dtype != wide:  # what 16 bits have rounded away from x goes back by one of their steps
            further = (found.to(wide) - centre).abs() > (aim - centre).abs()
            found = torch.where(further, torch.nextafter(found, x), found)
        return clip(found, x, bounds)

    return onto_sphere


def fgsm(
    x: Float[Tensor, " samples *shape"], loss: Loss, eps: float, norm: str = "linf", bounds: Bounds = None
) -> Float[Tensor, " samples *shape"]:
    """x + ε · sign(∇ₓ loss), for l2 x + ε · ∇ₓ loss / ‖∇ₓ loss‖₂, within `bounds`. Shape kept."""
    if eps == 0:
        return x
    return clip(x + eps * steepest(input_gradient(loss, x), norm), x, bounds)


def pgd(
    x: Float[Tensor, " samples *shape"],
    loss: Loss,
    eps: float,
    alpha: float,
    steps: int,
    norm: str = "linf",
    bounds: Bounds = None,
    start: Float[Tensor, " samples *shape"] | None = None,
) -> Float[Tensor, " samples *shape"]:
    """`steps` times x′ ← Π(x′ + α · direction), Π the projection onto the ball of radius ε around x and onto `bounds`.

    `start` is a first perturbation, none if left out. Shape kept.
    """
    if eps == 0:
        return x
    project = projection(x, eps, norm, bounds)
    moved = x if start is None else project(x + start)
    for _ in range(steps):
        moved = project(moved + alpha * steepest(input_gradient(loss, moved), norm))
    return moved
