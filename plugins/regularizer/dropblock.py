"""DropBlock (Ghiasi et al., 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugins.base import Plugin, Stage, declare
from plugins.regularizer._maps import is_map, map_sites
from plugins.sites import attach

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def seed_rate(p: Any, height: int, width: int, block: int) -> Any:
    """γ = p / b² · H W / ((H − b + 1)(W − b + 1)), the probability of a block at each place where a whole one fits."""
    return p * (height * width / (block**2 * (height - block + 1) * (width - block + 1)))


def drop_blocks(
    x: Float[Tensor, "samples channels height width"], seeds: Bool[Tensor, "samples channels rows columns"], block: int
) -> Float[Tensor, "samples channels height width"]:
    """Zero the squares of side `block` whose upper left corners are seeds; what is kept is multiplied by all / kept. Shape kept.

    Corners are where a whole square fits: there are (height − block + 1) rows and (width − block + 1) columns of them.
    """
    padded = F.pad(seeds.to(x.dtype), [block - 1] * 4)
    kept = 1 - F.max_pool2d(padded, block, stride=1)
    return x * kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp(min=1)).to(x.dtype)


class DropBlockLayer(nn.Module):
    """The layer that :class:`DropBlock` puts after an activation; what is no map, or one of a single point, it leaves as it is.

    The probability is a tensor, so that a compiled model need not be compiled anew where it changes; it is in no checkpoint.
    """

    p: Tensor

    def __init__(self, p: float, block_size: int) -> None:
        super().__init__()
        self.block_size = block_size
        self.register_buffer("p", torch.tensor(float(p)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Drop squares in training."""
        if not self.training or not is_map(x.shape):
            return x
        samples, channels, height, width = x.shape
        block = min(self.block_size, height, width)
        draws = torch.rand(samples, channels, height - block + 1, width - block + 1, device=x.device)
        return drop_blocks(x, draws < seed_rate(self.p, height, width, block), block)

    def extra_repr(self) -> str:
        """The side of the squares."""
        return f"block_size={self.block_size}"


class DropBlock(Plugin):
    """Drop squares of feature maps at random during training: neighbouring units tell the same, so single ones are not missed.

    Squares of side b start at each place where a whole one fits with probability γ = p/b² · HW / ((H − b + 1)(W − b + 1)), for each
    sample and channel; what is kept is multiplied by the number of units over that of kept ones. As squares overlap, a little less
    than p is dropped. Maps smaller than b × b get squares as large as they are.

    It acts on hidden activations that are maps of convolutions over images, of more than 1 × 1.

    Shapes:
        activations: (samples, channels, height, width).

    Raises:
        RecipeError: no such map in the model, or one that is made by a function and returned by no module.

    Source: Ghiasi et al., "DropBlock: A regularization method for convolutional networks", NeurIPS 2018; lecture B.
    """

    stage = Stage.LAYERS
    on_shards = True

    p: float = declare.share("share of units that is dropped", default=0.1, off=0.0)
    block_size: int = declare.count("side of the squares", default=7, note="smaller maps get squares as large as they are")
    ramp_steps: int = declare.count("steps in which the share grows linearly from 0 to p", default=0, least=0)

    def __post_init__(self) -> None:
        self.layers: list[DropBlockLayer] = []

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put a layer after each map of a convolution."""
        places = map_sites(model, self.setting.shape, self.state_key)
        self.layers = [DropBlockLayer(self.share(0), self.block_size) for _ in places]
        for (_, host), layer in zip(places, self.layers, strict=True):
            attach(host, "dropblock", layer)
        return model

    def share(self, steps: int) -> float:
        """The share that is dropped after some steps."""
        return self.p * min(1.0, steps / self.ramp_steps) if self.ramp_steps else self.p

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Set the share of this step."""
        if self.ramp_steps:
            share = self.share(pl_module.steps_done)
            for layer in self.layers:
                layer.p.fill_(share)
            self.record(pl_module, "p", share)
