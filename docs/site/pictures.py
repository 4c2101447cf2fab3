"""Pictures of what augmentations do, for the catalogue: photographs, and what several draws make of them.

Unlike the rest of the site they import torch and the techniques.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.utils import make_grid

from plugins.base import Batch, Plugin, RecipeError, Setting, Task
from plugins.loss.by_task import LossByTask
from recipes.config.catalogue import Catalogue, Option
from recipes.engine.module import RecipeModule
from recipes.run.classes import instantiate

GROUP = "augmentation"
SIDE, DRAWS, ENLARGED = 64, 5, 2  # pixels, draws of each photograph, times that a pixel is drawn to either side


def photographs() -> Tensor:
    """Two of scikit-learn's, (2, 3, side, side) in [0, 1]."""
    images = [torch.tensor(image).permute(2, 0, 1)[None].float() / 255 for image in load_sample_images().images]
    squares = [image[..., : min(image.shape[-2:]), : min(image.shape[-2:])] for image in images]
    return torch.cat([F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True) for square in squares])


def place(option: Option) -> str:
    """Where the site has the picture of an option."""
    return f"pictures/{option.group}-{option.name}.png"


def picture(option: Option) -> bytes | None:
    """A PNG file with a row for each photograph: itself, then what each draw makes of it; None where the option takes no photographs."""
    originals = photographs()
    x = originals.repeat_interleave(DRAWS, 0)
    setting = Setting((3, SIDE, SIDE), (Task("", "classification", 2),), 0, lambda: iter([originals]))
    module = RecipeModule(nn.Flatten(), LossByTask(), torch.optim.SGD)
    try:
        module.build([instantiate(option.node, Plugin)], setting, precision="32-true", devices=1)
    except RecipeError:
        return None
    labels = torch.arange(2).repeat_interleave(DRAWS)
    batch = Batch(x, {"": labels}, {"": labels}, samples=torch.arange(len(x)))
    for plugin in module.hooks["transform_batch"]:
        batch = plugin.transform_batch(batch, module)
    views = [extra for extra in batch.extra.values() if isinstance(extra, Tensor) and extra.shape[1:] == x.shape[1:]]
    seen = views[0][: len(x)] if views and torch.equal(batch.x, x) else batch.x  # what is made beside images that stay
    rows = torch.cat([originals.unsqueeze(1), seen.unflatten(0, (2, DRAWS))], 1).flatten(0, 1).clamp(0, 1)
    large = rows.repeat_interleave(ENLARGED, 2).repeat_interleave(ENLARGED, 3)
    grid = make_grid(large, nrow=1 + DRAWS, padding=4, pad_value=1.0)
    file = BytesIO()
    Image.fromarray((255 * grid).round().byte().permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def pictures(catalogue: Catalogue) -> dict[str, bytes]:
    """The files of all augmentations of photographs, by their place on the site."""
    found = {place(option): picture(option) for option in catalogue.groups[GROUP].values()}
    return {name: content for name, content in found.items() if content is not None}


def write(folder: Path) -> None:
    """Write them all into a folder, to be looked at."""
    for name, content in pictures(Catalogue()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
