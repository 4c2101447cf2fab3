"""Pictures of what techniques do to images, drawn in the first steps of a run, and of what they have seen, drawn at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from plugins.base import Batch, Plugin, implementers
from recipes.config.errors import first_line
from recipes.config.run_files import PICTURES
from recipes.engine.module import RecipeModule
from recipes.launch.ranks import is_first_rank
from recipes.store.files import write_whole

log = logging.getLogger("recipes")

SAMPLES = 8
PIXELS = 96  # side of a sample in the picture
GAP = 4
STEPS = 10  # in which a technique must have changed a batch to be drawn: of two that mix, each batch gets one


def draw_pictures(module: RecipeModule, folder: Path) -> None:
    """Have the first steps draw each technique that changes images, as FOLDER/OPTION.png."""
    assert module.setting is not None
    if not module.setting.is_image or module.setting.shape[0] not in (1, 3):
        return
    watches = [Watch(plugin, folder / f"{plugin.option}.png") for plugin in module.hooks["transform_batch"]]
    module.hooks["transform_batch"] = list(watches)


class Watch:
    """Takes a technique's place until its picture is drawn, so that later steps cost nothing."""

    def __init__(self, plugin: Plugin, path: Path) -> None:
        self.plugin, self.path = plugin, path
        self.acts = plugin.acts

    def transform_batch(self, batch: Batch, module: Any) -> Batch:
        """Let the technique do its work, and draw it."""
        changed = self.plugin.transform_batch(batch, module)
        with module.off_the_clock():
            before, after = (x[:SAMPLES].detach().float().cpu() for x in (batch.x, changed.x))
            if drawn := not torch.equal(before, after):
                self._draw(before, after)
        if drawn or module.steps_done >= STEPS - 1:
            hooks = module.hooks["transform_batch"]
            hooks[hooks.index(self)] = self.plugin
        return changed

    def _draw(self, before: Tensor, after: Tensor) -> None:
        low, high = float(before.min()), float(before.max())
        if low < 0 or high > 1:  # in other units than those of a picture
            before, after = ((x - low) / (high - low or 1.0) for x in (before, after))
        rows = self.plugin.picture(before, after)
        if rows is not None:
            image = grid(rows)
            write_whole(self.path, lambda file: image.save(file, "PNG"))


def grid(rows: Sequence[Tensor]) -> Image.Image:
    """Rows of images (samples, channels, height, width) below each other, enlarged without smoothing; gaps are transparent."""
    side = max(max(row.shape[-2:]) for row in rows)
    times, step = max(1, PIXELS // side), max(1, round(side / PIXELS))
    cells = [row[..., ::step, ::step].repeat_interleave(times, -2).repeat_interleave(times, -1) for row in rows]
    height, width = (max(cell.shape[dim] for cell in cells) for dim in (-2, -1))
    columns = max(len(cell) for cell in cells)
    image = Image.new("RGBA", (columns * (width + GAP) - GAP, len(cells) * (height + GAP) - GAP))
    for row, images in enumerate(cells):
        whole = images.nan_to_num().clamp(0, 1).mul(255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        for column, sample in enumerate(whole.numpy()):
            top, left = (height - sample.shape[0]) // 2, (width - sample.shape[1]) // 2
            image.paste(Image.fromarray(sample), (column * (width + GAP) + left, row * (height + GAP) + top))
    return image


def draw_what_was_seen(plugins: Iterable[Plugin], folder: Path, result: Mapping[str, Any]) -> None:
    """Draw what each technique asks for once a run has ended well, as FOLDER/pictures/OPTION.png; a mishap is told in the log."""
    drawn = implementers(plugins, "drawing")
    if not drawn or result["status"] != "finished" or not is_first_rank():
        return
    try:
        from recipes.compare.panels import draw_panels  # what draws takes half a second to import
        from recipes.compare.runs import Run

        run = Run(folder, result["status"])
        for plugin in drawn:
            figure = draw_panels(run, plugin.option, plugin.drawing())
            if figure is not None:
                write_whole(folder / PICTURES / f"{plugin.option}.png", partial(figure.savefig, format="png"))
    except Exception as error:  # whatever a library of pictures does not take
        log.warning("no pictures of what diagnostics have seen: %s", first_line(error))
