"""Width normalization: what is drawn on an image, at one width (Cireşan et al., 2011)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.base import Plugin, Refusal, Selection, Stage, declare
from plugins.preprocessing._background import background_of, expect_kept
from plugins.preprocessing._layer import InputLayer

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

FAINT = 0.1  # share of an image's largest difference from the background up to which a pixel belongs to that
REPAINTING = {  # what becomes of the background in training, and not in evaluation
    **dict.fromkeys(("feature_noise", "gaussian_noise", "swap_noise"), "noise on the background"),
    **dict.fromkeys(
        ("autoaugment", "color_jitter", "randaugment", "trivial_augment"), "a background of less contrast, or inverted,"
    ),
    "spec_augment": "a band over the background",
}


def foreground(
    x: Float[Tensor, "samples channels height width"], background: Float[Tensor, "channels 1 1"]
) -> Bool[Tensor, "samples width"]:
    """The columns in which a pixel differs from the background, in any channel, by more than a tenth of the most that one does."""
    difference = (x - background).abs().amax(1)
    return (difference > FAINT * difference.amax((1, 2), keepdim=True)).any(1)


def resampling(columns: Bool[Tensor, "samples size"], width: int) -> Float[Tensor, "samples size size"]:
    """The share of each column of an image (last) in each one of the result, which is as wide; 0 outside of the resized box.

    The box of the columns that are there is resized to the width, and put in the middle. Between columns it is linear; where the box becomes
    smaller, the triangles are as wide as the step (antialiasing). Of no columns it is the whole image.
    """
    size = columns.shape[1]
    place = torch.arange(size, device=columns.device)
    there = columns.int()
    first, last = there.argmax(1, keepdim=True), size - 1 - there.flip(1).argmax(1, keepdim=True)
    step = (last - first + 1) / width
    new = place - (size - width) // 2
    centre = first + (new + 0.5) * step - 0.5
    distance = (place - centre.unsqueeze(2)).abs() / step.clamp_min(1).unsqueeze(2)
    inside = ((first <= place) & (place <= last)).unsqueeze(1)
    share = (1 - distance).clamp_min(0) * inside
    share = share / share.sum(2, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
    return share * ((new >= 0) & (new < width)).unsqueeze(1)


class Widened(InputLayer):
    """Images whose foreground has one width, and the background around it."""

    background: Tensor

    def __init__(self, model: nn.Module, background: Tensor, width: int, size: int) -> None:
        super().__init__(model)
        self.register_buffer("background", background.to("cpu", torch.get_default_dtype()))
        self.width, self.size = width, size

    def transform(self, x: Tensor) -> Tensor:
        """Resize in the width. Shape kept."""
        if x.shape[-1] != self.size:  # of which the width, in pixels, is another share
            raise ValueError(
                f"preprocessing/width was made for images {self.size} pixels wide, got {x.shape[-1]}: keep their size"
            )
        with torch.autocast(x.device.type, enabled=False):
            share = resampling(foreground(x.detach(), self.background), self.width).to(x.dtype)
            return self.background + (x - self.background) @ share.transpose(1, 2).unsqueeze(1)


class WidthInputs(Plugin):
    """Resize what is drawn on an image to one width, whatever it was; its height stays.

    The bounding box of the foreground, from its first column to its last, is resized to the width and put in the middle, with the background
    around. A pixel belongs to the foreground if it differs from the background, in any channel, by more than a tenth of the most that one of
    the image does; the background is the median, over the training split's first 10,000 images, of the median of their borders, for each
    channel. An image without a background is resized as a whole to the width: take another preprocessing for photographs.
    Values are not changed: they stay those of the raw range.

    Raises:
        Refusal: samples that are no images, targets with a class for each pixel, a width larger than the images'; an augmentation that puts
            something on the background, which would be drawn in training alone.

    Source: Cireşan et al., "Convolutional Neural Network Committees for Handwritten Character Classification", ICDAR 2011, and
    "Multi-column Deep Neural Networks for Image Classification", CVPR 2012 (widths 10 to 20 on MNIST); lecture B.
    """

    stage = Stage.PREPROCESSING
    on_named_inputs = False
    on_class_maps = False
    refuses = {
        f"augmentation/{name}": f"{what} counts as what is drawn, in training alone; type preprocessing=standardize, or leave {name} out"
        for name, what in REPAINTING.items()
    }

    width: int | None = declare.count(
        "width of the foreground in pixels", default=None, null="5/7 of the image's, as MNIST's 20 of 28"
    )

    def __post_init__(self) -> None:
        self._beside: Sequence[Plugin] = ()  # what changes images before they are given to the layer

    def check(self, selection: Selection) -> None:
        """Refuse what is no image, or is less wide."""
        self._beside = selection.plugins
        setting = selection.setting
        if setting.is_named:
            return  # refused by what the class says
        if not setting.is_image:
            raise Refusal(
                f"preprocessing/width takes images (channels, height, width), and samples are {tuple(setting.shape)}: type "
                f"preprocessing=standardize"
            )
        if self.width is not None and self.width > setting.shape[2]:
            raise Refusal(
                f"preprocessing/width: images are {setting.shape[2]} pixels wide, and width={self.width}: type preprocessing.width="
                f"{setting.shape[2]} or less"
            )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front, with the background; it comes from the checkpoint where a finished run is loaded."""
        channels, _, size = self.setting.shape
        width = self.width or max(1, round(size * 5 / 7))
        inputs = self.setting.training_inputs
        background = torch.zeros(channels, 1, 1) if inputs is None else background_of(inputs())
        if inputs is not None:
            expect_kept(self._beside, background, self.setting, FAINT)
        return Widened(model, background, width, size)
