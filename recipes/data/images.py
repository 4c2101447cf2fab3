"""Images of a user, in files or in the cells of a table: looked at once, and decoded each time that they are needed."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from plugins.base import RecipeError, expect, expect_choice
from recipes.data.memory import fits

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L", "LA", "La")  # modes of PIL without colours
COLOURS = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")  # grey, of 16 bits
SCALED = ("PNG", "PPM")  # formats whose numbers in the mode I are of 16 bits
WITH_ALPHA = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}  # and how it is told
TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # orientations of EXIF, and PIL's numbers of what undoes them
ORIENTATION = 0x0112
LARGE = 2**28  # bytes of a file that the memory may not hold
ASPECTS = ("stretch", "crop", "pad")
BROKEN: tuple[type[Exception], ...] = (  # what PIL raises of a file that is damaged
    *(OSError, EOFError, SyntaxError, ValueError, OverflowError, LookupError, TypeError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


class Unreadable(RecipeError):
    """A file or a cell that is no image.

    Args:
        where: it lies.
        reason: what is wrong with it.
    """

    def __init__(self, where: Any, reason: str) -> None:
        super().__init__(f"{where} cannot be read as an image ({reason}): write it again, or take it away")
        self.where, self.reason = where, reason

    def __reduce__(self) -> Any:
        return Unreadable, (self.where, self.reason)


class Looked(NamedTuple):
    """What is known of an image without decoding it."""

    digest: bytes  # of the file's content, and of how it is shown
    size: tuple[int, int]  # height, width, as it is shown
    grey: bool
    frames: bool = False  # whether it has several, of which the first is taken


class Form(NamedTuple):
    """What is made of each image.

    Args:
        size: height and width.
        channels: 1 or 3.
        aspect: how it gets another size (bilinear): `stretch`ed, by a `crop` of its middle, or with a black edge, `pad`.
    """

    size: tuple[int, int]
    channels: int
    aspect: str = "stretch"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return (self.channels, *self.size)

    def __str__(self) -> str:
        return f"{self.shape}" + ("" if self.aspect == "stretch" else f" {self.aspect}")


def expect_form(size: Any, channels: Any, aspect: Any = "stretch") -> tuple[int, int] | None:
    """Refuse a size, channels or an aspect that no image has; returns height and width that images are resized to.

    Args:
        size: `data.size`, pixels: one number, (height, width) or None.
        channels: `data.channels`, 1, 3 or None.
        aspect: `data.aspect`.
    """
    given = [size, size] if isinstance(size, int) else size
    pair = isinstance(given, (list, tuple)) and len(given) == 2 and all(type(number) is int and number >= 1 for number in given)
    expect(given is None or pair, "data.size", "a number of pixels ≥ 1, [HEIGHT,WIDTH] or null", size)
    expect(channels in (None, 1, 3), "data.channels", "1, 3 or null", channels)
    expect_choice("data.aspect", aspect, ASPECTS)
    return None if given is None else (given[0], given[1])


def look_at_one(path: Path, where: Any = None) -> Looked:
    """A hash of a file's content, and what its head says of the image.

    Args:
        path: of the file.
        where: it lies, for the error; None: the path says so.
    """
    try:
        if not path.is_file() and path.exists():  # a pipe would be waited for
            raise Unreadable(where or path, "it is no file")
        if (size := path.stat().st_size) >= LARGE and not fits(size):  # which is not asked in vain for each of many
            raise Unreadable(where or path, f"{size / 2**30:.1f} GiB, for which the memory is too small")
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(where or path, error) from None
    return look_at_content(content, where or path)


def look_at_content(content: bytes, where: Any) -> Looked:
    """The same of bytes that are in memory.

    Args:
        content: of an image's file.
        where: it lies, for the error.

    Raises:
        Unreadable: it is no image, or one whose pixels have more than 16 bits.
    """
    if not content:
        raise Unreadable(where, "the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            turned, mode, (width, height) = orientation(image), mode_of(image), image.size
            clear = mode in WITH_ALPHA or "transparency" in image.info
            frames = has_frames(image)
    except BROKEN as error:
        raise unreadable(where, error) from None
    if mode not in (*GREY, *COLOURS, *DEEP):
        raise Unreadable(where, f"its pixels are of the kind {mode}, expected 8 or 16 bits")
    shown = b"turned " * (turned > 1) + b"on white" * clear  # images that are shown otherwise than before have another hash
    digest = hashlib.blake2b(content, digest_size=16, person=shown).digest()
    return Looked(digest, (width, height) if turned > 4 else (height, width), mode in (*GREY, *DEEP), frames)


def has_frames(image: Image.Image) -> bool:
    """Whether an image has several frames that follow each other; what is behind the first one may be damaged."""
    with suppress(*BROKEN):
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    return False


def mode_of(image: Image.Image) -> str:
    """PIL's mode, but for images of 16 bits whose numbers it keeps in 32."""
    return "I;16" if image.mode == "I" and image.format in SCALED else image.mode


def orientation(image: Image.Image) -> int:
    """How a camera was held, 1 to 8; 1 where nothing, or nothing that can be understood, says so."""
    with suppress(Exception):  # of a part of the file that is not needed to see it
        turned = int(image.getexif().get(ORIENTATION, 1))
        return turned if turned in TURNED else 1
    return 1


def decode(file: Path | bytes, form: Form, where: Any = None) -> Tensor:
    """An image as bytes (channels, height, width): turned as the camera was held, in front of white where it is transparent.

    Args:
        file: its path, or its content.
        form: that it gets.
        where: it lies, for the error; None: the path says so.
    """
    height, width = form.size
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            turned, found = orientation(image), in_bytes(image).convert("L" if form.channels == 1 else "RGB")
        if turned in TURNED:
            found = found.transpose(Image.Transpose(TURNED[turned]))
        if found.size != (width, height):
            found = resized(found, (width, height), form.aspect)
        pixels = np.array(found)
    except BROKEN as error:
        raise unreadable(file if where is None else where, error) from None
    return torch.from_numpy(pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1))


def in_bytes(image: Image.Image) -> Image.Image:
    """An image whose pixels have 8 bits and are not transparent."""
    mode = mode_of(image)
    if mode in DEEP:
        return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if mode not in WITH_ALPHA and "transparency" not in image.info:
        return image
    clear = image.convert(WITH_ALPHA.get(mode, "RGBA")).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(clear)
    return white.convert("RGB")


def resized(image: Image.Image, size: tuple[int, int], aspect: str) -> Image.Image:
    """An image in another size, width and height, without black edges only where it is stretched or cropped."""
    if aspect == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if aspect == "stretch":
        return image.resize(size, Image.Resampling.BILINEAR)
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = max(1, min(size[0], round(image.width * scale))), max(1, min(size[1], round(image.height * scale)))
    edged = Image.new(image.mode, size)
    edged.paste(image.resize(inner, Image.Resampling.BILINEAR), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return edged


def unreadable(where: Any, error: Exception) -> Unreadable:
    """The error about a file that is no image."""
    if isinstance(error, UnidentifiedImageError):
        return Unreadable(where, "of no kind that is known here")
    if isinstance(error, OSError) and error.strerror:
        return Unreadable(where, error.strerror)
    return Unreadable(where, (str(error).splitlines() or [type(error).__name__])[0])


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


def with_channels(given: Any, known: Any, asked: Mapping[str, Any]) -> str:
    """What to type where images have other channels than those that a model knows, and nothing else differs; else nothing.

    Args:
        given: the shape of a sample.
        known: that of the model's samples.
        asked: the parameters of the data.
    """
    of_images = isinstance(given, tuple) and isinstance(known, tuple) and len(given) == len(known) == 3
    right = of_images and given[1:] == known[1:] and given[0] != known[0] and known[0] in (1, 3)
    return f": type data.channels={known[0]}" if right and "channels" in asked else ""
