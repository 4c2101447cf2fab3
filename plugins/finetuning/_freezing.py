"""What techniques of fine-tuning share: parameters that are trained from a time on, and norm layers that rest until then."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import lightning as L
from torch import nn

from plugins.base import Plugin, RecipeError, Stage
from plugins.depth import depths
from plugins.sites import statistic_sites

NEVER = math.inf
ROUNDING = 1e-9  # of a sum of epochs
DEEPEST = 8  # layers that may stand around a model
TOGETHER = (
    "it counts the steps of all parameters together, so those that join late would take far too {} ones; take optimizer=adamw"
)
# what cannot take in parameters on the way; averages that begin at 0 make steps too long where the square is the slower one, else too short
LATE = {f"optimizer/{name}": TOGETHER.format("long") for name in ("schedule_free", "timm", "pytorch_optimizer")} | {
    f"optimizer/{name}": TOGETHER.format("short") for name in ("adan", "soap")
}


class Freezing(Plugin):
    """Leave parameters as they are until a time of their own, an epoch, or from it on: no gradient, no update, no weight decay.

    Norm layers whose parameters rest are in evaluation mode: they use the statistics they have, and measure none. Who is trained
    is a function of the number of steps done, so a run that goes on thaws where it would have. A subclass defines `starts`.
    """

    stage: ClassVar[Stage] = Stage.FINETUNING
    on_shards = True

    def starts(self, model: nn.Module) -> Mapping[str, float]:
        """After how many epochs each parameter is trained, by name: 0 from the start, `NEVER` not at all."""
        raise NotImplementedError

    def is_trained(self, start: float, now: float) -> bool:
        """Whether what has such a time of its own is trained now."""
        return start <= now + ROUNDING

    def now(self, trainer: L.Trainer, module: Any) -> float:
        """How far the training is, in epochs."""
        goes_on = not module.phase.get("fresh", True)  # with the weights of the phases before, whose epochs may be shorter
        before = sum(phase["epochs"] for phase in module.phase["ended"]) if goes_on else 0.0
        return float(before + module.steps_done / trainer.num_training_batches)

    def expect_time(self, trainer: L.Trainer, module: Any) -> None:
        """Refuse a training in which it is not known how far it is."""
        if any(0 < start < NEVER for start in self._times) and math.isinf(trainer.num_training_batches):
            raise RecipeError(f"{self.state_key} counts epochs, and the training data has no end: give a loader with a length")

    def keeps_norms(self) -> bool:
        """Whether norm layers whose parameters rest keep their statistics."""
        return True

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Find what rests, and have it rest."""
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._starts = {name: start for name, start in self.starts(model).items() if name in trained}
        self._norms = dict(self._resting_norms(model)) if self.keeps_norms() else {}
        self._times = sorted({*self._starts.values(), *self._norms.values()})
        self._stage: int | None = None
        parameters = dict(model.named_parameters())
        for name, start in self._starts.items():
            parameters[name].requires_grad_(self.is_trained(start, 0.0))  # norm layers follow when the training starts
        return model

    def _resting_norms(self, model: nn.Module) -> Iterator[tuple[str, float]]:
        """When each norm layer in training mode measures: with its own parameters or, without any, with the layer before it."""
        owners = {id(owner) for _, owner, _ in statistic_sites(model)}
        before = next((self._starts[name] for name, _ in model.named_parameters() if name in self._starts), 0.0)
        for path, layer in model.named_modules():
            own = [f"{path}.{name}" if path else name for name, _ in layer.named_parameters(recurse=False)]
            if known := [self._starts[name] for name in own if name in self._starts]:
                before = min(known)
            if id(layer) in owners and layer.training and (known or not own):
                yield path, before

    def _set_norms(self, model: nn.Module, prefix: str, now: float) -> None:
        for name, start in self._norms.items():
            model.get_submodule(prefix + name).training = self.is_trained(start, now)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin, or go on where a checkpoint was saved."""
        self.expect_time(trainer, pl_module)
        self._stage = None
        self._set(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Thaw, or freeze, what is due."""
        self._set(trainer, pl_module)

    def _set(self, trainer: L.Trainer, module: Any) -> None:
        now = self.now(trainer, module)
        stage = sum(start <= now + ROUNDING for start in self._times)
        if stage == self._stage:
            return
        self._stage = stage
        prefix = _prefix(self._starts, dict(module.model.named_parameters()))
        if prefix is None:
            raise RecipeError(f"{self.state_key}: parameters have changed their names since the model was built: build it anew")
        module.train_parameters({prefix + name: self.is_trained(start, now) for name, start in self._starts.items()})
        self._set_norms(module.model, prefix, now)


def _prefix(names: Iterable[str], now: Mapping[str, Any]) -> str | None:
    """What layers that were put around the model since have put in front of its names; None: they have become others."""
    prefixes = ("model." * layers for layers in range(DEEPEST))
    return next((prefix for prefix in prefixes if all(prefix + name in now for name in names)), None)


def by_depth(model: nn.Module, option: str) -> dict[int, list[str]]:
    """The names of parameters by how many layers lie between them and the head, the head first; one layer alone is refused."""
    depth = depths(model)
    blocks: dict[int, list[str]] = {}
    for name, _ in model.named_parameters():
        blocks.setdefault(depth.get(name, 0), []).append(name)
    if len(blocks) < 2:
        raise RecipeError(f"{option} needs layers before the head, and {type(model).__name__} is its head alone: leave it out")
    return dict(sorted(blocks.items()))


def called(names: list[str]) -> str:
    """What names of parameters have in common, as a name of their layer: `layer1.0` of `layer1.0.conv.weight` and `layer1.0.bn.bias`."""
    parts = [name.split(".")[:-1] for name in names]
    common = []
    for words in zip(*parts, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    shared = ".".join(common)
    return shared or " and ".join(dict.fromkeys(".".join(words) or name for words, name in zip(parts, names, strict=True)))


def share_of(model: nn.Module, names: Iterable[str]) -> str:
    """How many numbers some parameters have, of all."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return f"{sum(sizes[name] for name in names):,} of {sum(sizes.values()):,} parameters"
