"""Patch dropout (Liu et al., 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.activations import Place, eagerly, passage, tensors
from plugins.base import Plugin, Refusal, Selection, Stage, declare
from plugins.sites import attach, blank_pass, expect_training, without_attached

if TYPE_CHECKING:
    from jaxtyping import Float

MOST_PREFIX = 8  # tokens of classes and registers in front of those of patches
ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)  # of a model that needs all its tokens


def drop_patches(x: Float[Tensor, "samples tokens width"], p: float, prefix: int = 0) -> Float[Tensor, "samples kept width"]:
    """Keep ⌊(1 − p) n⌋ of n tokens behind the first `prefix` ones, at least one, of each sample others, drawn uniformly."""
    first, patches = x[:, :prefix], x[:, prefix:]
    samples, number, width = patches.shape
    kept = max(1, int(number * (1 - p)))
    chosen = torch.argsort(torch.randn(samples, number, device=x.device), dim=1)[:, :kept]
    return torch.cat([first, patches.gather(1, chosen.unsqueeze(-1).expand(-1, -1, width))], 1)


class PatchDropoutLayer(nn.Module):
    """The layer that :class:`PatchDropout` puts behind the tokens; there are fewer of them behind it in training.

    Args:
        p: share of the tokens that is left out.
        prefix: tokens in front that stay.
    """

    def __init__(self, p: float, prefix: int) -> None:
        super().__init__()
        self.p, self.prefix = p, prefix

    def forward(self, x: Tensor) -> Tensor:
        """Leave tokens out in training."""
        return drop_patches(x, self.p, self.prefix) if self.training else x

    def extra_repr(self) -> str:
        """Share and prefix."""
        return f"p={self.p:g}, prefix={self.prefix}"


class PatchDropout(Plugin):
    """Leave tokens of patches out at random during training, which trains faster and learns from less.

    Of n tokens each sample keeps ⌊(1 − p) n⌋ of its own, and whatever is not of a patch, such as the class token; nothing is rescaled. At test
    all are there.

    It acts where the tokens have their positions already: behind the first module that returns a token for each place of a convolution,
    and behind which the model runs with fewer of them. Models in which tokens keep their places, such as Swin, have none.

    Shapes:
        tokens: (samples, tokens, width).

    Raises:
        Refusal: samples that are no images, or a model without such tokens.

    Source: Liu et al., "PatchDropout: Economizing Vision Transformers Using Patch Dropout", WACV 2023; timm's PatchDropout.
    """

    stage = Stage.LAYERS

    p: float = declare.number("share of the tokens of patches that is left out", default=0.25, least=0, below=1, off=0.0)

    def check(self, selection: Selection) -> None:
        """Refuse what has no patches."""
        if not selection.setting.is_image:
            raise Refusal(f"{self.state_key} leaves patches of images out, and the samples are no images: leave it out")

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer behind the tokens."""
        place, prefix = self._tokens(model)
        expect_training(self.state_key, model, [place.module])
        attach(place.module, self.option, PatchDropoutLayer(self.p, prefix))
        number = place.shape[1] - prefix
        self.remarks = [
            f"tokens of patches kept in training: {max(1, int(number * (1 - self.p)))} of {number}, behind {place.name}"
        ]
        return model

    def _tokens(self, model: nn.Module) -> tuple[Place, int]:
        """Where tokens are, and how many stand before those of patches."""
        patches = 0
        for place in passage(model, self.setting.shape).calls:
            further = place.shape[1] - patches if len(place.shape) == 3 and patches > 2 else -1
            if isinstance(place.module, nn.Conv2d):
                patches = math.prod(place.shape[2:])
            elif 0 <= further <= MOST_PREFIX and runs_with_fewer(model, self.setting.shape, place):
                return place, further
        raise Refusal(
            f"{self.state_key} leaves tokens of patches out, and {type(model).__name__} has none without which it runs: choose a vision "
            f"transformer, such as model.name=vit_b_16 of torchvision or vit_small_patch16_224 of timm, or leave it out"
        )


def runs_with_fewer(model: nn.Module, shape: tuple[int, ...], place: Place) -> bool:
    """Whether a model gives outputs of the same shapes where one of its tokens, behind a module that returns them, is gone."""
    shapes = []
    with eagerly(model), without_attached(model):
        for tokens in (None, -1):
            handle = place.module.register_forward_hook(lambda module, inputs, output, last=tokens: output[:, :last])
            try:
                shapes.append([output.shape for output in tensors(blank_pass(model, shape, False))])
            except ERRORS:
                return False
            finally:
                handle.remove()
    return shapes[0] == shapes[1]
