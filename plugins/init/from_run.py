"""The weights of another run, or of a file, to start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plugins.base import Plugin, RecipeError, Refusal, Selection, Stage, declare

AROUND = ("module.", "_orig_mod.")  # which wrappers of torch's put in front of names
SHOWN = 4  # names that are told


class Matched(NamedTuple):
    """What of some tensors goes into a model.

    Attributes:
        taken: tensors by their name in the model.
        misfits: shapes there and here, by the name that both have.
        missing: names that the model alone has.
        unused: names that the model has not.
    """

    taken: dict[str, Tensor]
    misfits: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: list[str]
    unused: list[str]


def match(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Matched:
    """Tensors that fit a model by name, shape and kind of numbers, whatever stood around the model they come from.

    A layer in front of a model, as preprocessing is, puts `model.` in front of its names: the number of these is chosen with which
    most tensors fit, and names with fewer belong to what stood around it.
    """
    plain = {_without(name, AROUND): value for name, value in found.items()}
    best: Matched | None = None
    while plain and (best is None or any(name.startswith("model.") for name in plain)):
        if best is not None:
            plain = {name.removeprefix("model."): value for name, value in plain.items() if name.startswith("model.")}
        now = _compared(plain, wanted)
        best = now if best is None or len(now.taken) >= len(best.taken) else best
    return best or _compared(plain, wanted)


def _compared(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Matched:
    both = [name for name in wanted if name in found]
    taken = {name: found[name] for name in both if _fits(found[name], wanted[name])}
    misfits = {name: (tuple(found[name].shape), tuple(wanted[name].shape)) for name in both if name not in taken}
    missing, unused = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
    return Matched(taken, misfits, missing, unused)


def _fits(found: Tensor, wanted: Tensor) -> bool:
    kinds = found.is_floating_point() == wanted.is_floating_point() and found.is_complex() == wanted.is_complex()
    return kinds and found.shape == wanted.shape


def _without(name: str, prefixes: tuple[str, ...]) -> str:
    while start := next((prefix for prefix in prefixes if name.startswith(prefix)), ""):
        name = name.removeprefix(start)
    return name


class FromRunInit(Plugin):
    """Start from the weights of another run, or of a file of weights, wherever name and shape fit.

    Of a run its best model is taken, as its test used it: averaged weights where it averaged. Buffers of norm layers come along;
    what does not fit, such as a head of other classes, stays as the model's constructor drew it, and is told. The layers that prepare
    inputs and give outputs their units are this run's own, fitted on its data. A run that goes on has its weights in its checkpoint
    and needs the source no more, unless a technique asks for one more training from the start (`next_phase`).

    Raises:
        RecipeError: nothing lies there; no weight that fits; numbers that are not finite.
        Refusal: no folder.

    Source: Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.
    """

    stage = Stage.INIT

    folder: str | None = declare.value(
        "folder of the run to start from, such as outputs/DATE/TIME-ID, or a file of weights, .ckpt, .pt or .safetensors",
        declare.RUN_FOLDER + ", or a file of weights",
        lambda value: isinstance(value, str) and bool(value),
        default=None,
        null="asked for before the first batch",
    )

    def check(self, selection: Selection) -> None:
        """Refuse to start from nowhere."""
        if self.folder is None:
            raise Refusal(
                f"{self.state_key} starts from the weights of a run: type init.folder=FOLDER, such as outputs/DATE/TIME-ID, or the "
                f"name of a file of weights"
            )

    @torch.no_grad()
    def transform_model(self, model: nn.Module) -> nn.Module:
        """Copy what fits, unless all weights come from a checkpoint of this run."""
        if self.setting.training_inputs is None or self.setting.restored:
            return model
        if self.setting.load_weights is None:
            raise RecipeError(f"{self.state_key} reads a run's folder: give RecipeModule.build a Setting with load_weights")
        wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        found = self.setting.load_weights(str(self.folder))
        matched = match(found, wanted)
        weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        if not weights & matched.taken.keys():
            here = ", ".join(f"{name} {tuple(wanted[name].shape)}" for name in list(wanted)[:SHOWN])
            raise RecipeError(
                f"init.folder={self.folder} has no weight that fits {type(model).__name__} by name and shape, which begins with {here}: "
                f"choose a run of the same model"
            )
        for name, value in matched.taken.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise RecipeError(f"init.folder={self.folder}: {name} has numbers that are not finite; choose another run")
            wanted[name].copy_(value)
        known = getattr(found, "remark", "")
        self.remarks = [*remarks(str(self.folder), matched, wanted), *([f"{self.folder} {known}"] if known else [])]
        return model


def remarks(folder: str, matched: Matched, wanted: Mapping[str, Tensor]) -> Iterator[str]:
    """What was taken, what was not, and why."""
    numbers, all_numbers = (sum(value.numel() for value in tensors.values()) for tensors in (matched.taken, wanted))
    yield f"{len(matched.taken)} of {len(wanted)} tensors ({numbers:,} of {all_numbers:,} numbers) are those of {folder}"
    if matched.misfits:
        shapes = [f"{name} {there} there, {here} here" for name, (there, here) in matched.misfits.items()]
        yield f"as drawn, of another shape or kind: {_some(shapes, '; ')}"
    if matched.missing:
        yield f"as drawn, not in there: {_some(matched.missing)}"
    if matched.unused:
        yield f"not used, no place here: {_some(matched.unused)}"


def _some(words: list[str], between: str = ", ") -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return between.join(words[:SHOWN]) + more
