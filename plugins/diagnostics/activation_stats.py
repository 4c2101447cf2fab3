"""What hidden activations are like: their histograms, how many are saturated, which units are dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.activations import passage
from plugins.base import Batch, Module, Panel, Stage, declare
from plugins.diagnostics._looks import LooksAtPasses, gathered, processes, summed
from plugins.hidden import follows_convolutions, hidden_sites, host_of, named_sites

ENDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "softsign": (-1.0, 1.0), "hardtanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0)}
VALUES = 2**14  # of which a histogram is made
Ends = tuple[float, float] | None


@dataclass(frozen=True)
class Site:
    """An activation that is looked at: who returns it, between which ends it lies (None: there are none), and which dimension counts its units."""

    module: nn.Module
    ends: Ends
    units: int


def statistics(h: Tensor, ends: Ends, margin: float) -> Tensor:
    """Of activations of any shape how many there are, their sum, that of their squares, how many are 0, and how many are saturated, (5,).

    Saturated is what lies within `margin` times the width of the range from one of its two ends.
    """
    h = h.float()
    near = h.new_zeros(()) if ends is None else (h - sum(ends) / 2).abs() >= (0.5 - margin) * (ends[1] - ends[0])
    return torch.stack([h.new_tensor(float(h.numel())), h.sum(), h.square().sum(), (h == 0).sum().float(), near.sum().float()])


def alive(h: Tensor, units: int) -> Tensor:
    """Which units are not 0 for all samples and places, (units,); `units` is the dimension that counts them."""
    return (h != 0).movedim(units, 0).flatten(1).any(1)


def some_of(h: Tensor, number: int) -> Tensor:
    """As many values, spread evenly; where there are fewer the rest is NaN, (number,)."""
    flat = h.float().flatten()
    flat = flat[:: -(-flat.numel() // number) or 1][:number]
    return nn.functional.pad(flat, (0, number - flat.numel()), value=torch.nan)


class ActivationStats(LooksAtPasses):
    """Log what the hidden activations of each layer are like, in the pass that is trained on, and their histograms.

    For each layer mean, standard deviation and share of zeros of its activations h; the share that is saturated, of those between two ends
    (tanh, sigmoid, …): within `margin` of the width of the range from an end, where hardly any gradient leads through; and the share of units
    that are dead: 0 for all samples of the step, so that they learn nothing. Units are the channels of maps and the features of all else.
    All are those of the whole step on all processes, before dropout; paddings of sequences count too. Histograms are of up to 16,384 values.

    Raises:
        RecipeError: no hidden activation in the model, or none that matches `sites`; activations that no module returns, and no `sites`
            that say what to look at instead.

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010; lectures B, D.
    """

    stage = Stage.LAYERS  # where the names of the model are those that it was given
    on_named_inputs = True
    on_class_maps = True
    on_shards = True

    margin: float = declare.number(
        "share of the range from an end within which an activation is saturated", default=0.01, above=0, below=0.5
    )
    sites: Sequence[str] | None = named_sites("Of any other modules the outputs are meant.")
    every_n_steps: int = declare.count("steps between two looks, the first at the first step", default=500)

    def __post_init__(self) -> None:
        """Nothing has been seen."""
        super().__post_init__()
        self._sites: list[Site] = []
        self._forget()

    def _forget(self) -> None:
        self._sums: list[Tensor | float] = [0.0] * len(self._sites)
        self._alive: list[list[Tensor]] = [[] for _ in self._sites]
        self._values: list[list[Tensor]] = [[] for _ in self._sites]

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, and have its hidden activations recorded."""
        found = passage(model, self.setting.shape)
        places = {id(site[1]): place for place in found.activations if (site := host_of(found, place))}
        for _, module in hidden_sites(model, found, self.state_key, self.sites):
            place = places.get(id(module))
            kind = "" if place is None else place.function or type(place.module).__name__.lower()
            maps = place is not None and follows_convolutions(found, place)
            self._sites.append(Site(module, ENDS.get(kind), 1 if maps else -1))
        self.recorded = [site.module for site in self._sites]
        self._forget()
        return model

    def records(self, module: Module) -> bool:
        """Have the passes kept that it looks at."""
        return self.would_look(module)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Look at the activations of this pass."""
        if self.looks_now(module):
            self._look(module)
        return None

    @torch.no_grad()
    def _look(self, module: Module) -> None:
        for number, site in enumerate(self._sites):
            calls = [h.detach() for h in module.recorded[site.module]]
            self._sums[number] += sum(statistics(h, site.ends, self.margin) for h in calls)
            units = [alive(h, site.units) for h in calls]
            before = self._alive[number]
            self._alive[number] = [a | b for a, b in zip(before, units, strict=True)] if before else units
            self._values[number] += [some_of(h, max(1, VALUES // (self.parts * processes() * len(calls)))) for h in calls]

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Record what the passes of this step have shown."""
        if seen := [number for number, values in enumerate(self._values) if values]:
            self._tell(module, seen)
            self._forget()

    @torch.no_grad()
    def _tell(self, module: Module, seen: Sequence[int]) -> None:
        names: dict[nn.Module, str] = {part: name for name, part in module.model.named_modules()}
        sums = summed(torch.stack([torch.as_tensor(self._sums[number]) for number in seen]))
        living = [torch.cat(self._alive[number]) for number in seen]
        units = summed(torch.cat(living).float()).split([len(each) for each in living])
        for row, each, number in zip(sums, units, seen, strict=True):
            name = names[self._sites[number].module] or "model"
            self._record(module, name, row, (each == 0).float().mean(), self._sites[number].ends)
            module.record_histogram(f"{self.option}/{name}", gathered(torch.cat(self._values[number])), at_once=True)
        self.record(module, "dead", (torch.cat(units) == 0).float().mean(), at_once=True)

    def _record(self, module: Module, name: str, row: Tensor, dead: Tensor, ends: Ends) -> None:
        count, total, squares, zeros, saturated = row
        mean = total / count
        found: dict[str, Any] = {"mean": mean, "std": (squares / count - mean.square()).clamp_min(0).sqrt()}
        found |= {"zeros": zeros / count, "dead": dead} | ({} if ends is None else {"saturated": saturated / count})
        for what, value in found.items():
            self.record(module, f"{name}_{what}", value, at_once=True)

    def drawing(self) -> Sequence[Panel]:
        """The last histograms, and shares and deviations over the steps."""
        titles = {"saturated": "saturated", "dead": "dead units", "std": "standard deviation"}
        return [Panel("activations", histograms=True), *(Panel(title, ending) for ending, title in titles.items())]
