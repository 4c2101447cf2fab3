"""What the words of a job are composed to, for the job: its sweep composes them anyway, to learn what each job asks for.

Only a fork takes it (:mod:`recipes.launch.warm`), from the process that has started it. A process of its own composes its words itself,
and comes to the same. Nothing here imports torch.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.composing import Checked, compose_checked


def composed_for(catalogue: Catalogue, words: Sequence[str]) -> Checked | None:
    """The words of a job, checked and composed within a sweep; None where they are wrong together, which the job tells."""
    with beside_hydra():
        try:
            return compose_checked(catalogue, words)
        except RecipeError:
            return None


def handed_over(words: Sequence[str], checked: Checked | None) -> bytes:
    """What a job is given."""
    return pickle.dumps((list(words), checked)) if checked else b""


def taken_over(words: Sequence[str], given: bytes) -> Checked | None:
    """What a job was given, if that is composed of its words."""
    if not given:
        return None
    of, checked = pickle.loads(given)
    return checked if of == list(words) else None


@contextmanager
def beside_hydra() -> Iterator[None]:
    """Words can be composed where Hydra is at work, such as within a sweep; it finds everything as it was."""
    at_work, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = at_work, config
