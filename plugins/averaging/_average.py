"""What averages of the weights have in common: kept beside the training weights, swapped in for evaluation, left in at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import Module, Plugin, RecipeError, Stage
from plugins.shards import kept_like, part
from plugins.sites import statistic_sites


def wide(dtype: torch.dtype) -> torch.dtype:
    """The kind of numbers in which a mean of values of this kind is kept: rounding to 16 bits swallows what it moves by."""
    if dtype.is_complex:
        return torch.promote_types(dtype, torch.complex64)
    return torch.promote_types(dtype, torch.float32)


def numbers(values: Iterable[Tensor]) -> list[Tensor]:
    """The real numbers, on this process, that tensors are made of, as views: a complex one has two a value."""
    return [torch.view_as_real(own) if (own := part(value)).is_complex() else own for value in values]


class Averaging(Plugin):
    """Average the weights after each update; validation, the best model and the trained result use the average.

    All parameters of floats or complex numbers are averaged, in 32 bits at least. So are running statistics, which belong to
    the weights they were measured with, whichever tensors hold them by now; one that appears or changes its shape begins
    anew. Every other buffer stays what it is in the model: counters, fixed tables, the vectors of a spectral norm.
    A subclass defines `move`, and `due` if it does not average after every step.
    """

    stage = Stage.AVERAGING
    on_named_inputs = True
    on_class_maps = True
    on_shards = True
    to_begin: ClassVar[str] = "let averaging.when last to its end"  # where there was no average; "": that is no mistake

    def __post_init__(self) -> None:
        """Nothing is averaged yet."""
        self.count = 0  # weights that went into the average
        self.in_place = False  # whether training has ended and left the average in the model
        self._average: dict[str, Tensor] = {}
        self._parameters: dict[str, Tensor] | None = None  # found once for all steps

    def move(self, average: list[Tensor], weights: list[Tensor]) -> None:
        """Take the weights into the average, in place; `count` weights are in it already, at least one."""
        raise NotImplementedError

    def due(self, module: Module) -> bool:
        """Whether the weights after this step belong into the average."""
        return True

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Take the new weights into the average; the first ones are copied."""
        if not self.due(module):
            return
        if self._parameters is None:
            self._parameters = self._known_parameters(module)
        statistics = {name: owner.get_buffer(own) for name, owner, own in statistic_sites(module.model)}
        live = {**self._parameters, **statistics}
        if fresh := [name for name, value in live.items() if not self._has(name, value)]:
            for name in fresh:
                self._average[name] = torch.empty_like(live[name], dtype=wide(live[name].dtype))
            torch._foreach_copy_(numbers(self._average[name] for name in fresh), numbers(live[name] for name in fresh))
        if old := [name for name in live if name not in fresh]:
            average = numbers(self._average[name] for name in old)
            weights = [weight.to(mean.dtype) for mean, weight in zip(average, numbers(live[name] for name in old), strict=True)]
            self.move(average, weights)
        self.count += 1

    def _has(self, name: str, value: Tensor) -> bool:
        return self.count > 0 and name in self._average and self._average[name].shape == value.shape

    def _known_parameters(self, module: Module) -> dict[str, Tensor]:
        """The parameters that are averaged, and each average placed and cut up like what it is an average of."""
        model = module.model
        named = {name: p.detach() for name, p in model.named_parameters() if p.is_floating_point() or p.is_complex()}
        if self.count:
            places = {*named, *(name for name, _ in model.named_buffers())}
            if odd := sorted((named.keys() - self._average.keys()) | (self._average.keys() - places)):
                raise RecipeError(
                    f"{self.state_key}: the average in the checkpoint is of another model; only one has {', '.join(odd)}"
                )
            live = {**named, **{name: owner.get_buffer(own) for name, owner, own in statistic_sites(model)}}
            self._average = {
                name: kept_like(value, live[name]) for name, value in self._average.items() if name in live
            }  # of a buffer that is no statistic nothing is kept
        return named

    def _put(self, module: Module) -> list[tuple[nn.Module | None, str, Tensor, Tensor]]:
        """Write the average into the model; owner and name of each buffer, the tensor written to and what it held."""
        found: list[tuple[nn.Module | None, str, Tensor]] = [
            (None, name, parameter) for name, parameter in self._known_parameters(module).items()
        ]
        names = [name for _, name, _ in found]
        for name, owner, own in statistic_sites(module.model):
            if self._has(name, tensor := owner.get_buffer(own)):
                names.append(name)
                found.append((owner, own, tensor))
        kept = [(*place, part(place[2]).clone()) for place in found]
        torch._foreach_copy_(numbers(tensor for _, _, tensor in found), numbers(self._average[name] for name in names))
        return kept

    @contextmanager
    def evaluation_weights(self, module: Module) -> Iterator[None]:
        """The average in place of the weights; they come back bit for bit."""
        if self.count == 0 or self.in_place:
            yield
            return
        with torch.no_grad():
            kept = self._put(module)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_([part(tensor) for _, _, tensor, _ in kept], [value for *_, value in kept])
                for owner, name, tensor, _ in kept:
                    if owner is not None and owner.get_buffer(name) is not tensor:  # replaced by a pass within
                        setattr(owner, name, tensor)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin anew, or go on with what a checkpoint held."""
        if pl_module.steps_done == 0:
            self.count, self._average = 0, {}
        self.in_place, self._parameters, self.events = False, None, []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Forget the average behind the last step in which it acts."""
        if not self.acts(pl_module.progress):
            self.count, self._average = 0, {}

    @torch.no_grad()
    def settle(self, module: Module) -> None:
        """Leave the average in the model: it is what was trained; where there is none, say so."""
        if self.count:
            self._put(module)
            self.in_place = True
        elif self.to_begin:
            self.events = [f"the training ended without an average, so its weights are evaluated: {self.to_begin}"]

    def state_dict(self) -> dict[str, Any]:
        """The average by name of parameter or statistic, and its count."""
        return {"average": dict(self._average), "count": self.count, "in_place": self.in_place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._average = {name: value.detach().clone() for name, value in state_dict["average"].items()}
        self.count, self.in_place, self._parameters = state_dict["count"], state_dict["in_place"], None
