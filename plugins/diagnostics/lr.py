"""The learning rates of all parameter groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import Module, Panel, Stage, declare
from plugins.diagnostics._layers import layer_of
from plugins.diagnostics._looks import Looks
from plugins.parameters import named_parameters


def names_of_groups(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each group of parameters: of the innermost module that holds all of them, "model" where none does.

    Where several groups are of one module, what their parameters are is told too, such as `head_bias`, and then their number.
    """
    known = {id(named.parameter): named for named in named_parameters(model)}
    members = [[known[id(each)] for each in group["params"] if id(each) in known] for group in groups]
    paths = [[layer_of(named.name).split(".") for named in group] for group in members]
    found = ["model" if len(groups) == 1 else ".".join(_common(each)) or "model" for each in paths]
    kinds = [
        "_".join(kind for kind in ("weight", "bias", "norm") if any(named.kind == kind for named in group)) for group in members
    ]
    counts = Counter(found)
    found = [f"{name}_{kind}" if counts[name] > 1 and kind else name for name, kind in zip(found, kinds, strict=True)]
    counts = Counter(found)
    return [f"{name}_{number}" if counts[name] > 1 else name for number, name in enumerate(found)]


def _common(paths: Sequence[Sequence[str]]) -> list[str]:
    """What all paths begin with."""
    return [words[0] for words in takewhile(lambda words: len(set(words)) == 1, zip(*paths, strict=False))]


class LearningRates(Looks):
    """Log the learning rate of each group of parameters, by which the update was made.

    Groups come of `optimizer.no_decay`, `optimizer.layer_decay`, `optimizer.rates` and of what techniques say; each has the name of the
    module that holds its parameters; one without a rate is left out. (The column `lr` of each run is the rate of the first group in the step to come.)
    """

    stage = Stage.PROJECTION  # before a guard lowers the rate, and an average gives the schedule its own back
    on_shards = True

    every_n_steps: int = declare.count("steps between two looks, the first at the first step", default=50)

    def __post_init__(self) -> None:
        """The groups are not known yet."""
        self._names: list[str] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Groups are those of this training."""
        self._names = []

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Look at the rates of this step."""
        if not self.looks_at(module.steps_done):
            return
        groups = optimizer.param_groups
        if len(self._names) != len(groups):
            self._names = names_of_groups(module.model, groups)
        for name, group in zip(self._names, groups, strict=True):
            if (rate := group.get("lr")) is None:  # what finds its step by itself has none
                continue
            self.record(module, name, rate.detach().clone() if isinstance(rate, Tensor) else float(rate), at_once=True)

    def drawing(self) -> Sequence[Panel]:
        """The rates over the steps."""
        return [Panel("learning rate", "*")]
