"""What torchvision makes of one image at a time."""

import torch
from torchvision.transforms.v2 import InterpolationMode, RandAugment

from plugins.augmentation._operations import OPERATIONS

NAMES = dict(
    zip(
        OPERATIONS[:-1],
        (
            *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
            *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert"),
        ),
        strict=True,
    )
)
ORACLE = RandAugment()


def images(samples, channels=3, height=8, width=10):
    """Images of bytes, some of few values."""
    x = torch.randint(256, (samples, channels, height, width)) / 255
    x[::4] = (x[::4] * 3).floor() / 3
    x[1] = 0.25
    return x


def operation(image, name, magnitude, mode="nearest"):
    """One operation by its name with us, with a magnitude of torchvision's."""
    return ORACLE._apply_image_or_video_transform(image, NAMES[name], magnitude, InterpolationMode(mode), {})


def magnitude(kind, name, level, levels, height, width):
    """The magnitude without sign that a class of torchvision's takes at a level, and whether it has a sign."""
    found, signed = kind._AUGMENTATION_SPACE[NAMES[name]]
    table = found(levels, height, width)
    return (0.0 if table is None else float(table[level])), signed


def expect_within_a_grey_level(found, expected, of_edges=0.005):
    """All but a few numbers, which lie between two pixels and may be of either, differ by one grey level at most."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert float(((found - expected).abs() > 1 / 255).float().mean()) <= of_edges
