"""What a search searches: the words of its command as Optuna's distributions, and a trial's values as words.

Optuna is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from plugins.errors import RecipeError
from recipes.config.quoting import show
from recipes.config.syntax import expand

SEED = "seed"
SAMPLES = {"data.fold": "fold", "data.split_seed": "split"}  # say which samples are held out


@dataclass
class Space:
    """What varies from trial to trial, what from job to job of a trial, and what stays.

    Attributes:
        dimensions: Optuna's distribution of each key that is searched; of a choice, the words are its choices.
        seeds: with each of which a trial is trained.
        fixed: the words that all jobs have.
    """

    dimensions: dict[str, Any] = field(default_factory=dict)
    seeds: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """Of a trial, but for its seed."""
        from optuna.distributions import CategoricalDistribution

        found = []
        for key, value in values.items():
            choice = isinstance(self.dimensions[key], CategoricalDistribution)
            found.append(str(value) if choice else f"{key}={show(value)}")
        return [*self.fixed, *found]

    def grid(self) -> dict[str, list[Any]]:
        """All values of each dimension.

        Raises:
            RecipeError: one of them has no end of values.
        """
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        found: dict[str, list[Any]] = {}
        for key, distribution in self.dimensions.items():
            if isinstance(distribution, CategoricalDistribution):
                found[key] = list(distribution.choices)
                continue
            if isinstance(distribution, FloatDistribution) and distribution.step is None:
                raise RecipeError(
                    f"hydra/sweeper/sampler=grid takes lists and ranges, and {key} is an interval: list values, such as {key}=0.01,0.1"
                )
            count = round((distribution.high - distribution.low) / (distribution.step or 1)) + 1
            found[key] = [distribution.low + (distribution.step or 1) * number for number in range(count)]
        return found


def space_of(words: Sequence[str]) -> Space:
    """The space that a search's words span.

    Raises:
        RecipeError: they span none, or seeds are not listed, or they vary which samples are held out.
    """
    found = Space()
    for word in words:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            found.fixed.append(word)
        elif override.key_or_group == SEED:
            if override.is_interval_sweep():
                raise RecipeError(f"{word}: each trial is trained with each of the seeds: list them, such as seed=0,1,2")
            found.seeds += [str(each.input_line) for each in expand(override)]
        elif (key := override.key_or_group) in SAMPLES:
            first, *others = (str(each.input_line) for each in expand(override))
            rest = (
                f", then sweep over others with what it finds, -m {key}={','.join(other.partition('=')[2] for other in others)}"
            )
            raise RecipeError(
                f"{word}: the search would find the easiest {SAMPLES[key]}: type one, {first}{rest if others else ''}"
            )
        else:
            found.dimensions[override.get_key_element()] = distribution(override)
    if not found.dimensions:
        raise RecipeError(
            "hydra/sweeper=optuna has nothing to search: give values to choose from, such as 'optimizer.lr=tag(log,interval(0.001,1))'"
        )
    return found


def distribution(override: Override) -> Any:
    """Optuna's distribution of a word: of an interval the numbers in it, of a range those of the range, else the words themselves."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        log = "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low or 0), float(high or 0), log=log)
    if isinstance(value, RangeSweep) and value.start is not None and value.stop is not None and not value.shuffle:
        low, stop, step = value.start, value.stop, value.step
        count = len([*expand(override)])
        if all(isinstance(number, int) for number in (low, stop, step)):
            return IntDistribution(int(low), int(low) + int(step) * (count - 1), step=int(step))
        return FloatDistribution(float(low), float(low) + float(step) * (count - 1), step=float(step))
    return CategoricalDistribution([str(each.input_line) for each in expand(override)])
