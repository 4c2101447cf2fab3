"""Images of a user, in files or in the cells of a table: looked at once, and decoded each time that they are needed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plugins.base import RecipeError, expect

GREY = ("1", "L")  # modes of PIL that have 8 bits or fewer, and no colours
COLOURS = ("P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
BROKEN: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises


class Looked(NamedTuple):
    """What is known of an image without decoding it."""

    digest: bytes
    size: tuple[int, int]  # height, width
    grey: bool


def expect_form(size: Any, channels: Any) -> tuple[int, int] | None:
    """Refuse a size or channels that no image has; returns height and width that images are resized to.

    Args:
        size: `data.size`, pixels: one number, (height, width) or None.
        channels: `data.channels`, 1, 3 or None.
    """
    given = [size, size] if isinstance(size, int) else size
    pair = isinstance(given, (list, tuple)) and len(given) == 2 and all(type(number) is int and number >= 1 for number in given)
    expect(given is None or pair, "data.size", "a number of pixels ≥ 1, [HEIGHT,WIDTH] or null", size)
    expect(channels in (None, 1, 3), "data.channels", "1, 3 or null", channels)
    return None if given is None else (given[0], given[1])


def look_at_one(path: Path) -> Looked:
    """A hash of a file's content, and what its head says of the image."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    return look_at_content(content, path)


def look_at_content(content: bytes, where: Any) -> Looked:
    """The same of bytes that are in memory.

    Args:
        content: of an image's file.
        where: it lies, for the error.

    Raises:
        RecipeError: it is no image, or one whose pixels have more than 8 bits.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, (width, height) = image.mode, image.size
    except BROKEN as error:
        raise unreadable(where, error) from None
    if mode not in (*GREY, *COLOURS):
        raise RecipeError(f"{where} has pixels of the kind {mode}, expected 8 bits: convert the image, or take it away")
    return Looked(hashlib.blake2b(content, digest_size=16).digest(), (height, width), mode in GREY)


def decode(file: Path | bytes, size: tuple[int, int], channels: int, where: Any = None) -> Tensor:
    """An image as bytes (channels, height, width).

    Args:
        file: its path, or its content.
        size: height and width that it is resized to (bilinear).
        channels: 1 or 3.
        where: it lies, for the error; None: the path says so.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            converted = image.convert("L" if channels == 1 else "RGB")
            if converted.size != (size[1], size[0]):
                converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.array(converted)
    except BROKEN as error:
        raise unreadable(file if where is None else where, error) from None
    return torch.from_numpy(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def unreadable(where: Any, error: Exception) -> RecipeError:
    """The error about a file that is no image."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RecipeError(f"{where} cannot be read as an image ({reason}): write it again, or take it away")


def one_size(looked: Sequence[tuple[Any, Looked]]) -> tuple[int, int]:
    """The size that all images have, each with its place."""
    where, first = looked[0]
    for other, look in looked:
        if look.size != first.size:
            sizes = [f"{here.size[0]} × {here.size[1]}" for here in (first, look)]
            raise RecipeError(
                f"images differ in size: {where} has {sizes[0]} pixels, {other} {sizes[1]}; type data.size=N to resize all, or "
                f"data.size=[HEIGHT,WIDTH]"
            )
    return first.size
