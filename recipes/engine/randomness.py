"""Random numbers that are a pure function of their owner: the generators that a forward pass draws from, seeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from plugins.base import derive_seed


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the generators that a forward pass draws from: cheaper than torch.manual_seed, which visits every backend."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def own_draws(seed: int, model: nn.Module) -> Iterator[None]:
    """Have the global generators, from which layers draw their initial weights, start from a seed; they come back as they were."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type != "cpu"}
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices if device.type == "cuda"]):
        for device in devices or {torch.device("cpu")}:
            seed_global(seed, device)
        yield


class Draws:
    """All random numbers of a training, each a pure function of seed, owner, step and part, or of seed, owner and step alone.

    Two ranks with one part each draw what one rank with two parts draws: so the two can be compared exactly.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.clock: tuple[int, ...] = (0, 0)  # step, and part if there is one, from which generators draw
        self._generators: dict[tuple[str, torch.device, bool], torch.Generator] = {}

    def set_clock(self, steps: int, part: int, rank: int, processes: int) -> None:
        """What is drawn from now on belongs to this part of this step."""
        self.clock = (steps, part * processes + rank if processes > 1 else part)

    def set_clock_of_step(self, steps: int) -> None:
        """What is drawn from now on belongs to this step as a whole, and is the same on all ranks."""
        self.clock = (steps,)

    def generator(self, owner: str, device: torch.device, same_on_ranks: bool = False) -> torch.Generator:
        """The owner's random numbers for this step and part: adding a technique leaves the draws of the others alone.

        With `same_on_ranks` they are those of the step, for all parts and ranks.
        """
        key = (owner, device, same_on_ranks)  # one that draws for the part may be in use while another draws for the step
        generator = self._generators.get(key)
        if generator is None:
            generator = self._generators[key] = torch.Generator(device)
        clock = self.clock[:1] if same_on_ranks else self.clock
        generator.manual_seed(derive_seed(self.seed, owner, *clock))
        return generator

    def seed_forward(self, device: torch.device) -> None:
        """Seed what layers draw from in a forward pass, such as dropout of the model's own."""
        seed_global(derive_seed(self.seed, "forward", *self.clock), device)

    def seed_between(self, steps: int, device: torch.device) -> None:
        """Seed the global generator for what draws between two steps, such as the order of a shuffling DataLoader.

        A function of the step alone, it is the same with every technique, and another in each epoch; the order of the first epoch, and of the
        first after a resume, is drawn before.
        """
        seed_global(derive_seed(self.seed, "between", steps), device)

    def seed_evaluation(self, split: str, index: int, rank: int, device: torch.device, start: int = 0) -> None:
        """Seed what a batch of an evaluation draws from, or its part that begins with the sample `start`."""
        seed_global(derive_seed(self.seed, split, index, rank, *([start] if start else [])), device)
