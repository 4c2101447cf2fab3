"""A picture of any kind becomes the bytes that a viewer shows, or is refused in one line."""

import io
import os
import pickle
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from plugins.base import RecipeError
from recipes.data import memory
from recipes.data.images import DEEP, Form, Unreadable, decode, expect_form, look_at_content, look_at_one

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
FULL = Form((6, 9), 3)


def content(image, kind="png", **further):
    """An image's file."""
    file = io.BytesIO()
    image.save(file, kind, **further)
    return file.getvalue()


def pixels(image, form=FULL, kind="png", **further):
    """What is made of an image, (height, width[, 3]), and whether it is grey."""
    file = content(image, kind, **further)
    decoded = decode(file, form)
    assert decoded.dtype == torch.uint8 and tuple(decoded.shape) == form.shape
    return decoded.numpy().transpose(1, 2, 0).squeeze(), look_at_content(file, "x").grey


def thrice(grey):
    return np.repeat(grey[:, :, None], 3, 2)


def test_grey_and_colours_are_as_they_were():
    assert np.array_equal(pixels(Image.fromarray(COLOURS))[0], COLOURS)
    found, grey = pixels(Image.fromarray(GREY))
    assert grey and np.array_equal(found, thrice(GREY))
    assert np.array_equal(pixels(Image.fromarray(GREY), Form((6, 9), 1))[0], GREY)
    light = (COLOURS @ [299, 587, 114]) / 1000
    assert np.abs(pixels(Image.fromarray(COLOURS), Form((6, 9), 1))[0] - light).max() <= 1


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_16_bits_are_scaled_not_clipped(kind):
    deep = RANDOM.integers(0, 65536, (6, 9), dtype=np.uint16)
    deep[0, :3] = 0, 257 * 100, 65535
    image = Image.fromarray(deep) if kind != "ppm" else None
    if kind == "ppm":
        file = b"P5 9 6 65535\n" + deep.astype(">u2").tobytes()
        found, grey = decode(file, FULL).numpy()[0], look_at_content(file, "x").grey
    else:
        assert image.mode in DEEP
        found, grey = pixels(image, kind=kind)
        found = found[:, :, 0]
    assert grey and np.array_equal(found, np.floor(deep / 65535 * 255 + 0.5)) and list(found[0, :3]) == [0, 100, 255]


def test_one_bit_is_black_and_white():
    bits = RANDOM.random((6, 9)) < 0.5
    found, grey = pixels(Image.fromarray(bits))
    assert grey and np.array_equal(found, thrice(255 * bits.astype(np.uint8)))


def test_a_palette_becomes_its_colours():
    few = Image.fromarray(COLOURS).quantize(8)
    few.info.clear()
    found, grey = pixels(few)
    palette = np.array(few.getpalette()).reshape(-1, 3)
    assert not grey and np.array_equal(found, palette[np.array(few)])


def test_cmyk_is_not_inverted():
    colour = Image.new("RGB", (9, 6), (200, 40, 90)).convert("CMYK")
    for kind in ("tiff", "jpeg"):
        found = pixels(colour, kind=kind)[0].reshape(-1, 3).astype(int)
        assert np.abs(found - [200, 40, 90]).max() <= 6, kind


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_in_front_of_white(mode):
    clear = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
    clear[0, :3], clear[0, 3:5] = 0, 255
    under = COLOURS if mode == "RGBA" else thrice(GREY)
    image = Image.fromarray(np.dstack([under if mode == "RGBA" else GREY, clear]), mode)
    found, grey = pixels(image)
    share = clear[:, :, None] / 255
    assert grey == (mode == "LA")
    assert np.abs(found - (under * share + 255 * (1 - share))).max() <= 1
    assert (found[0, :3] == 255).all() and np.array_equal(found[0, 3:5], under[0, 3:5])


def test_a_transparent_colour_of_a_palette():
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    found, _ = pixels(image, Form((1, 3), 3), transparency=1)
    assert found.reshape(3, 3).tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_picture_is_turned_as_the_camera_was_held(turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    file = content(Image.fromarray(COLOURS), exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    look = look_at_content(file, "x")
    assert look.size == upright.shape[:2] == ((9, 6) if turned > 4 else (6, 9))
    assert np.array_equal(decode(file, Form(look.size, 3)).numpy().transpose(1, 2, 0), upright)
    plain = look_at_content(content(Image.fromarray(COLOURS)), "x")
    assert (look.digest != plain.digest) and look_at_content(file, "y") == look


def test_exif_that_means_nothing():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert np.array_equal(pixels(Image.fromarray(COLOURS), exif=exif)[0], COLOURS)


def ramp(height, width):
    """Red grows to the right, green downwards."""
    down, right = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    return Image.fromarray(np.dstack([right, down, np.full_like(down, 200)]).round().astype(np.uint8))


def test_aspect():
    wide = ramp(60, 120)
    stretched, cropped, padded = (
        pixels(wide, Form((30, 30), 3, aspect))[0].astype(int) for aspect in ("stretch", "crop", "pad")
    )
    for found, low, high in ((stretched, 0, 255), (cropped, 64, 191)):
        assert np.abs(found[15, [0, -1], 0] - [low, high]).max() <= 8  # red at the left and at the right end
        assert np.abs(found[[0, -1], 15, 1] - [0, 255]).max() <= 8
    assert not padded[:7].any() and not padded[-7:].any() and (padded[8:22, :, 2] == 200).all()
    assert np.abs(padded[15, [0, -1], 0] - [0, 255]).max() <= 8
    tall = pixels(ramp(120, 60), Form((30, 30), 3, "pad"))[0]
    assert not tall[:, :7].any() and (tall[:, 8:22, 2] == 200).all()
    for aspect in ("stretch", "crop", "pad"):
        assert np.array_equal(pixels(Image.fromarray(COLOURS), FULL._replace(aspect=aspect))[0], COLOURS)
        assert pixels(ramp(1, 1000), Form((4, 4), 3, aspect))[0].shape == (4, 4, 3)


def test_of_several_frames_the_first_is_taken():
    first, *others = (Image.fromarray(RANDOM.integers(0, 2, (6, 9), dtype=np.uint8) * 255) for _ in range(3))
    file = content(first, "gif", save_all=True, append_images=others)
    assert look_at_content(file, "x").frames and not look_at_content(content(first, "gif"), "x").frames
    assert np.array_equal(decode(file, Form((6, 9), 1)).numpy()[0], np.asarray(first))


BROKEN = {
    "nothing": (b"", "the file is empty"),
    "text": (b"no picture", "of no kind that is known here"),
    "floats": (content(Image.fromarray(RANDOM.random((6, 9)).astype(np.float32)), "tiff"), "kind F, expected 8 or 16 bits"),
    "32 bits": (content(Image.fromarray(GREY.astype(np.int32)), "tiff"), "kind I, expected 8 or 16 bits"),
    "a bomb": (b"P5 100000 100000 255\n", "exceeds limit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_told(name):
    file, reason = BROKEN[name]
    with pytest.raises(Unreadable, match=rf"here.png cannot be read as an image \(.*{reason}.*\): write it again") as error:
        look_at_content(file, "here.png")
    assert "\n" not in str(error.value) and "0x" not in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))
    assert type(again) is Unreadable and str(again) == str(error.value) and again.reason == error.value.reason


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_a_file_that_is_damaged_is_read_or_told(kind):
    """Whatever a byte of it becomes, and wherever it ends."""
    rng = np.random.default_rng(len(kind) + ord(kind[0]))  # not RANDOM, of which other tests would draw other numbers
    frames = [Image.fromarray(rng.integers(0, 256, (19, 17, 3), dtype=np.uint8)) for _ in range(3)]
    more = {"save_all": True, "append_images": frames[1:]} if kind in ("gif", "webp", "tiff") else {}
    whole = content(frames[0], kind, **more)
    for _ in range(150):
        file = bytearray(whole)
        if rng.random() < 0.3:
            del file[rng.integers(len(file)) :]
        for place in rng.integers(len(file), size=rng.integers(1, 6)) if file else ():
            file[place] = rng.integers(256)
        for look in (lambda file: look_at_content(file, "here"), lambda file: decode(file, Form((8, 8), 3), "here")):
            with suppress(Unreadable), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of PIL, about what is odd in them
                look(bytes(file))


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(Unreadable, match="it is no file"):
        look_at_one(tmp_path / "a.png")


def test_a_file_larger_than_the_memory_is_not_read(tmp_path, monkeypatch):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(2**29)
    monkeypatch.setattr(memory, "available", lambda: 3 * 2.0**29 - 1)
    with pytest.raises(Unreadable, match="0.5 GiB, for which the memory is too small"):
        look_at_one(tmp_path / "a.png")


def test_the_memory_is_not_asked_for_each_of_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1 / 0)
    (tmp_path / "a.png").write_bytes(content(Image.fromarray(GREY), "png"))
    assert look_at_one(tmp_path / "a.png").grey
    with open(tmp_path / "b.png", "wb") as file:
        file.truncate(2**28)
    with pytest.raises(ZeroDivisionError):
        look_at_one(tmp_path / "b.png")


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_a_file_that_breaks_off_is_told(kind):
    file = content(Image.fromarray(RANDOM.integers(0, 256, (90, 80, 3), dtype=np.uint8)), kind)
    with pytest.raises(Unreadable, match="here cannot be read as an image"):
        decode(file[: len(file) // 2], Form((90, 80), 3), "here")


@pytest.mark.parametrize(
    ("given", "says"),
    [((0, 1), "data.size"), ((None, 2), "data.channels"), ((8, 3, "fit"), "data.aspect must be one of stretch, crop, pad")],
)
def test_forms_that_no_image_has(given, says):
    with pytest.raises(RecipeError, match=says):
        expect_form(*given)
