"""What lies elsewhere: the runs that a word names, and the samples that a finished run was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import torch

from plugins.errors import RecipeError
from recipes.compare.runs import below, natural
from recipes.data.base import Data
from recipes.data.loaders import EvaluationLoader
from recipes.data.split import samples_of


def find_runs(places: Sequence[str]) -> list[str]:
    """The folders of runs, each once, those of a pattern or of a sweep in their order.

    Args:
        places: folders of runs or of sweeps, or patterns such as outputs/study/*.

    Raises:
        RecipeError: a pattern fits no run.
    """
    found: dict[Path, str] = {}
    for place in places:
        is_pattern = has_magic(place) and not Path(place).is_dir()
        matched = [Path(each) for each in glob(place)] if is_pattern else [Path(place)]
        inside = [run for path in matched if path.is_dir() for run in below(path)]
        if is_pattern and not inside:
            raise RecipeError(
                f"{place} is the name of no run: expected the folder of a run or of a sweep, or a pattern that fits some"
            )
        for run in sorted(inside, key=natural) or matched:  # what holds no run is refused where it is loaded
            found.setdefault(run.resolve(), str(run))
    return list(found.values())


def held_out_but_known(kept: Mapping[str, Any], seen: str | None, content: str | None) -> str:
    """What a run has been trained on that is held out here, in words; empty for other data, or where nothing is known of them.

    Args:
        kept: what its checkpoint tells, which nobody needs to have checked.
        seen: the fingerprint of the data and their splits here.
        content: the same of all samples, however they are split.
    """
    there, phase = kept.get("data"), kept.get("phase")
    if content is None or kept.get("content") != content or not isinstance(there, str) or seen is None:
        return ""
    if samples_of(there) != samples_of(seen):
        return "was trained on another split of this data: it may know samples that are held out here"
    if isinstance(phase, Mapping) and phase.get("all_data"):
        return "was trained on the validation samples too: it knows those by which the best model is chosen here"
    return ""


class OwnSamples:
    """The samples on which a finished run was trained and validated, read when they are asked for.

    Args:
        make: the data of its config, not loaded yet.
        kept: what its checkpoint tells of them.
    """

    def __init__(self, make: Callable[[], Data], kept: Mapping[str, Any]) -> None:
        self.make, self.kept = make, kept
        self.all_data = bool((kept.get("phase") or {}).get("all_data"))  # whether its last phase has trained on both
        self._data: Data | None = None

    def __call__(self, split: str, device: torch.device) -> Iterator[Any]:
        """The samples of a split, as a loader yields them.

        Raises:
            RecipeError: these are other data now, or split in another way.
        """
        if split == "val" and self.all_data:
            raise RecipeError(
                "the validation samples of the run are asked for, and its last phase has trained on them: choose runs of +stopping=early"
            )
        if self._data is None:
            data = self.make()
            data.load_state(dict(self.kept.get("data_state", {})))
            data.setup()
            if (seen := self.kept.get("data")) and samples_of(seen) != samples_of(data.fingerprint):
                raise RecipeError(
                    "the samples that the run was trained and validated on are asked for, and these data are others: leave out the words of data"
                )
            self._data = data
        samples = self._data.splits[split]
        if split == "train":  # batches of one class would have other statistics than the split
            samples = samples[torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))]
        loader = EvaluationLoader(samples, self._data.eval_batch_size)
        loader.device = device
        return iter(loader)
