"""The loaders that take batches from a split by index."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import tee

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.base import Option, RecipeError, derive_seed
from plugins.inputs import numbers_in
from recipes.data.fetching import fetched
from recipes.data.source import Marked, Sample, Source

MOST = 500  # samples of an evaluation's batch,
LARGEST = 64 * 2**20  # and the bytes of them as floats


class StepLoader:
    """Batches of one optimizer step each, by index, in an order that is a pure function of seed and epoch.

    The order goes on from `position()`, the number of steps done, so a resumed run sees what the interrupted one would
    have seen. A step's samples are cut into `parts` × ranks equal pieces; with every number of ranks and parts that gives
    the same product, the pieces are the same. What is left at an epoch's end and fills no step is left out. With
    `repeats`, so many steps in a row get the same samples, and a pass over the data takes so many epochs. `sampling` is the
    option that gives an epoch's order in place of a random one, if it `acts` at its first step. Where it is `numbered`, batches tell which samples
    they have, in which epoch. The module that is trained sets these, and, where no `position` is given, `steps_done`, which is one.
    """

    steps_done: Callable[[], int] = staticmethod(lambda: 0)
    repeats: int = 1
    sampling: Option | None = None
    acts: Callable[[int], bool] = staticmethod(lambda step: True)
    numbered: bool = False
    correction: Tensor | None = None  # what makes up for how often each sample of the split is drawn in the epoch under way

    def __init__(
        self,
        split: Source,
        batch_size: int | str,
        seed: int,
        parts: int = 1,
        position: Callable[[], int] | None = None,
        world: int = 1,
        eval_batch_size: int | None = None,
    ) -> None:
        self.eval_batch_size = eval_batch_size
        self.split, self.seed, self.parts, self.position = split, seed, parts, position
        wanted = len(split) if batch_size == "full" else int(batch_size) * parts
        self.step_size = min(wanted, len(split) - len(split) % (parts * world))
        if self.step_size == 0:
            raise RecipeError(f"{len(split)} training samples cannot be cut into {world} devices × {parts} parts: use fewer")
        self._expect_equal_pieces(world)
        self.device: torch.device = split.device

    def __len__(self) -> int:
        return len(self.split) // self.step_size

    def __iter__(self) -> Iterator[Sample | Marked]:
        self.split = self.split.to(self.device)
        drawn, places = tee(self._indices((self.position or self.steps_done)()))
        batches = fetched(self.split, (index for _, index in places), self.device)
        weight = self.split.weight
        if weight is None and self.sampling is None and not self.numbered:
            yield from batches
            return
        for (epoch, index), (x, targets) in zip(drawn, batches, strict=True):
            counts = None if weight is None else weight[index].to(self.device)
            correction = None if self.correction is None else self.correction[index.cpu()].to(self.device)
            samples = index.to(self.device) if self.numbered or correction is not None else None
            told = counts is not None or samples is not None
            yield Marked(x, targets, counts, samples, epoch, correction) if told else (x, targets)

    def untold(self) -> StepLoader:
        """The same batches in the order of a training that begins, whatever a module has told of another one."""
        twin = copy.copy(self)
        twin.__dict__ = {
            name: value for name, value in vars(self).items() if not hasattr(StepLoader, name)
        }  # what has a default
        twin.position = None
        return twin

    def _indices(self, first: int) -> Iterator[tuple[int, Tensor]]:
        steps, known = len(self), -1
        for step in range(first, first - first % steps + steps):
            epoch, batch = divmod(step // self.repeats, steps)
            if epoch != known:
                order, known = self.order(epoch), epoch
            yield epoch, order[batch]

    def order(self, epoch: int) -> Tensor:
        """Indices (steps, samples of this rank in a step) of an epoch, where the split takes them."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._expect_equal_pieces(world)
        self.split = self.split.to(self.device)
        order = self._order(epoch)[: len(self) * self.step_size]
        order = order.view(len(self), self.parts, world, -1)[:, :, rank].reshape(len(self), -1)
        return order.to(self.split.device)

    def _order(self, epoch: int) -> Tensor:
        generator, self.correction = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch)), None
        if self.sampling is None or not self.acts(epoch * len(self) * self.repeats):
            return torch.randperm(len(self.split), generator=generator)
        samples, name = len(self.split), self.sampling.state_key
        generator = generator.manual_seed(derive_seed(self.seed, name, "order", epoch))
        labels = {task: target.cpu() for task, target in self.split.labels.items()}
        given = self.sampling.order(labels, epoch, generator)
        order, self.correction = given if isinstance(given, tuple) else (given, None)
        if order.shape != (samples,) or order.is_floating_point():
            raise RecipeError(
                f"{name}: order must give {samples} whole numbers, as many as there are samples, got {order.dtype} "
                f"of shape {tuple(order.shape)}"
            )
        if int(order.min()) < 0 or int(order.max()) >= samples:
            raise RecipeError(
                f"{name}: order must give numbers from 0 to {samples - 1}, got {int(order.min())} to {int(order.max())}"
            )
        return order

    def _expect_equal_pieces(self, world: int) -> None:
        if self.step_size % (world * self.parts):
            below = self.step_size // self.parts // world * world
            fits = " or ".join(f"data.batch_size={size}" for size in (below, below + world) if size)
            raise RecipeError(
                f"a step of {self.step_size} samples cannot be cut into {world} devices × {self.parts} parts: type {fits}"
            )

    def evaluation_batches(self, limit: int) -> Iterator[Sample]:
        """Clean training samples, the first `limit` of a fixed random order, for metrics in evaluation mode."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "evaluate"))
        index = torch.randperm(len(self.split), generator=generator)[:limit].to(self.split.device)
        yield from EvaluationLoader(self.split[index], self.eval_batch_size)

    def state_dict(self) -> dict[str, int]:
        """Nothing: the position is the number of steps done, which the checkpoint has."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load."""


class EvaluationLoader:
    """A whole split in order, in batches whose sizes differ by at most one, an equal number of them on each rank.

    Args:
        split: of which.
        batch_size: samples of a batch at most; None: 500, or as many as have 64 MiB as floats, whatever memory is free just then, so
            that the same run is rounded in the same way again.
    """

    def __init__(self, split: Source, batch_size: int | None = None) -> None:
        self.split, self.batch_size = split, batch_size or batch_size_of(split)
        self.device: torch.device = split.device

    def __len__(self) -> int:
        return max(1, -(-len(self.split) // self.batch_size))

    def __iter__(self) -> Iterator[Sample]:
        self.split = self.split.to(self.device)
        yield from fetched(self.split, map(self.positions, range(len(self))), self.device)

    def positions(self, batch: int) -> range:
        """Which samples of the split a batch of this rank has."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        count, piece = len(self) * world, batch * world + rank
        return range(len(self.split) * piece // count, len(self.split) * (piece + 1) // count)


def batch_size_of(split: Source) -> int:
    """Samples of an evaluation's batch where nobody says how many."""
    return max(1, min(MOST, LARGEST // max(1, 4 * numbers_in(split.shape))))
