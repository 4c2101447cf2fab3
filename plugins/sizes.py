"""What techniques share that train on images of other sizes than those of the data: all that is given such images must take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from plugins.base import Plugin, Refusal, Selection, Setting, Stage, does_something
from plugins.sites import blank_pass

FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError)  # of a model that takes one size
BY_PLACE = ("augmentation/feature_noise", "augmentation/swap_noise")  # know each number of an image of the data by its place


class Resizing(Plugin):
    """Refuses what takes images of one size only: what acts on them later, the model, what stands in front of it, a teacher."""

    def sizes(self, setting: Setting) -> list[tuple[int, ...]]:
        """Heights and widths that images may have in training, without those of the data, the first to be tried first."""
        raise NotImplementedError

    @property
    def without(self) -> str:
        """What to type so that images keep their size."""
        return f"leave {self.option} out"

    def check(self, selection: Selection) -> None:
        """Refuse what knows the places of whole images, and remember what will be given others."""
        super().check(selection)
        for plugin in selection.plugins:
            if plugin.state_key in BY_PLACE and plugin.stage > self.stage and self.sizes(selection.setting):
                raise Refusal(
                    f"{self.state_key} makes images of another size, and {plugin.state_key} knows each number of a whole image by its "
                    f"place: {self.without}, or leave {plugin.option} out"
                )
        in_front = [plugin.state_key for plugin in selection.plugins if plugin.stage == Stage.PREPROCESSING]
        self._in_front = next(iter(in_front), "what stands in front of the model")
        self._with = "".join(
            f" with {plugin.state_key}"
            for plugin in selection.plugins
            if plugin.stage == Stage.NORMALIZATION and does_something(plugin)
        )
        self._taught: list[Any] = [
            plugin for plugin in selection.plugins if plugin.group == "distillation" and plugin.option != "self"
        ]

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, but refuse one, or a teacher, that takes one size only."""
        inner = model
        while isinstance(within := getattr(inner, "model", None), nn.Module):
            inner = within  # what all that was put in front stands around
        for height, width in self.sizes(self.setting):
            size = f"{height} × {width}"
            if not self._takes(model, height, width):
                if self._takes(inner, height, width):
                    raise Refusal(
                        f"{self.state_key} makes images of {size}, which {self._in_front} does not take: type "
                        f"preprocessing=standardize, or {self.without}"
                    )
                raise Refusal(
                    f"{self.state_key} needs a model that takes images of several sizes, and {type(inner).__name__}{self._with} takes none "
                    f"of {size}: type model=resnet18, or {self.without}"
                )
            for plugin in self._taught:
                teacher = getattr(getattr(plugin, "asked", None), "model", None)
                if teacher is not None and self._found(teacher, height, width) is None:
                    raise Refusal(
                        f"{self.state_key} makes images of {size}, and the teacher of {plugin.state_key} takes none of that size: type "
                        f"distillation.teacher=FOLDER, a run of model=resnet18 and preprocessing=standardize, or {self.without}"
                    )
        return model

    def _found(self, model: nn.Module, height: int, width: int) -> Any:
        """What a model returns for images of a size; None where it takes none."""
        try:
            return blank_pass(model, (self.setting.shape[0], height, width), graph=False)
        except FAILURES:
            return None

    def _takes(self, model: nn.Module, height: int, width: int) -> bool:
        """Whether a model predicts on images of a size what it predicts on those of the data."""
        found, tasks = self._found(model, height, width), self.setting.tasks
        by_name = found if isinstance(found, Mapping) else {task.name: found for task in tasks[:1]}
        places = ((task, getattr(by_name.get(task.name), "shape", None)) for task in tasks)
        return all(shape is not None and shape[2:] == ((height, width) if task.shape else ()) for task, shape in places)
