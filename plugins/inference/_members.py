"""Trained runs beside the one that is evaluated: found, loaded, refused where they do not fit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from plugins.base import Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task, declare
from plugins.inputs import alike, described

MEMBERS = declare.value(
    "folders of finished runs, a list of such, or a pattern of their names such as 'outputs/study/*'",
    f"{declare.RUN_FOLDER}, a list of such, or a pattern of their names",
    lambda value: _is_folder(value) or (isinstance(value, list) and value != [] and all(map(_is_folder, value))),
    default=None,
    null="asked for before the first batch",
    more="Without a pattern, the folder of a sweep stands for all of its runs.",
)


def _is_folder(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def facts(task: Task) -> tuple[Any, ...]:
    """What two tasks must have in common for the mean of their predictions to mean something."""
    return task.kind, task.outputs, task.names, task.shape, task.quantiles


def expect_fits(owner: str, folder: str, known: Setting, setting: Setting) -> None:
    """Refuse a run that was trained on other inputs, other targets, or another split of the data.

    Args:
        owner: "group/option".
        folder: of the run.
        known: its setting.
        setting: that of the run which is evaluated.

    Raises:
        RecipeError: it does not fit.
    """
    named = f"{owner}: {folder} was trained on"
    if not alike(known.shape, setting.shape):
        raise RecipeError(
            f"{named} samples of shape {described(known.shape)}, these have {described(setting.shape)}: leave it out of inference.members"
        )
    there, here = ({task.name: task for task in each.tasks} for each in (known, setting))
    for name in dict.fromkeys((*here, *there)):
        if name not in there or name not in here or facts(there[name]) != facts(here[name]):
            told = " and ".join(
                f"{place} {_described(tasks[name]) if name in tasks else 'is none'}"
                for place, tasks in (("there", there), ("here", here))
            )
            raise RecipeError(f"{named} another target {name or 'y'}: {told}; leave it out of inference.members")
    if known.split and setting.split and known.split != setting.split:
        raise RecipeError(
            f"{named} other data, or another split of them, so that it may know samples which are tested here: leave it out of "
            f"inference.members, or train it with the same words of data"
        )


def _described(task: Task) -> str:
    places = f" at {task.shape} places" if task.shape else ""
    of = {"classification": "classes", "multilabel": "labels", "regression": "numbers"}[task.kind]
    names = f" ({', '.join(task.names[:4])}{', …' if len(task.names) > 4 else ''})" if task.names else ""
    return f"{task.outputs} {of}{names}{places}"


class OfMembers(Plugin):
    """Makes something of trained runs, its members, which are loaded when the model is built."""

    stage = Stage.INFERENCE
    on_named_inputs = True
    on_class_maps = True
    loading: ClassVar[list[str]] = []  # the run that is loaded as a member

    members: Any

    def check(self, selection: Selection) -> None:
        """Refuse to go on without members."""
        super().check(selection)
        if self.members is None:
            raise Refusal(
                f"{self.state_key} needs trained runs: give inference.members a pattern, such as 'outputs/study/*', or a list of their folders"
            )

    def loaded(self, setting: Setting) -> Iterator[tuple[str, Any]]:
        """The folder and the trained module of each member; one of another kind is refused.

        Args:
            setting: of the run that is evaluated.
        """
        if setting.load_run is None or setting.find_runs is None:
            raise RecipeError(
                f"{self.state_key} loads runs from folders: give RecipeModule.build a Setting with load_run and find_runs"
            )
        for folder in setting.find_runs([self.members] if isinstance(self.members, str) else self.members):
            with self._as_member(folder):
                module: Any = setting.load_run(folder)
            expect_fits(self.state_key, folder, module.setting, setting)
            yield folder, module.eval().requires_grad_(False)

    @contextmanager
    def _as_member(self, folder: str) -> Iterator[None]:
        """Load a run that must have no members of its own: its predictions would count for several, and runs may name each other."""
        if OfMembers.loading:
            raise RecipeError(
                f"{OfMembers.loading[-1]} has members of its own ({self.state_key}): name these in inference.members in its place"
            )
        OfMembers.loading.append(folder)
        try:
            yield
        finally:
            OfMembers.loading.pop()
