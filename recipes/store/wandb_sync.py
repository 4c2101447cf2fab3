"""The command that sends to Weights & Biases what runs have kept offline. Nothing here imports torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from plugins.errors import RecipeError
from recipes.config.quoting import path_word
from recipes.config.untrusted import read_text

HEADER = 7  # bytes of an offline run's file that hold nothing yet; one such file ends `wandb sync` for all others


def sync_command(folders: Iterable[Path]) -> str | None:
    """One command that sends to wandb's server what runs in these folders, or below them, logged offline; None if it is there.

    Of a run that was resumed offline the last part is sent: it is complete, and earlier ones may end in the middle of a record.
    """
    waiting = list(dict.fromkeys(part for folder in folders for part in _unsynced(folder.resolve())))
    by_place: dict[Path, list[Path]] = {}
    for part in waiting:
        by_place.setdefault(part.parents[2], []).append(part)
    words = [word for place, parts in by_place.items() for word in _shell_words(place, parts)]
    return f"wandb sync {' '.join(words)}" if words else None


def _unsynced(folder: Path) -> Iterator[Path]:
    """The offline parts below a folder that wait to be synced, at most one a run."""
    for place, inner, _ in os.walk(folder):
        inner[:] = sorted(name for name in inner if name not in ("checkpoints", "tensorboard", "pictures") and name[0] != ".")
        if "wandb" in inner and (identity := Path(place, "wandb", "run-id.txt")).is_file():
            inner.clear()
            try:
                name = read_text(identity).strip()
            except (OSError, RecipeError):
                continue
            if not re.fullmatch(r"[\w-]{1,64}", name):
                continue
            parts = [path.parent for path in identity.parent.glob(f"*run-*-{name}/run-{name}.wandb")]
            parts = [part for part in parts if (part / f"run-{name}.wandb").stat().st_size > HEADER]
            last = max(parts, key=lambda part: part.name.removeprefix("offline-"), default=None)
            if last is not None and last.name.startswith("offline-") and not _is_synced(last):
                yield last


def _is_synced(part: Path) -> bool:
    return any(part.glob("*.wandb.synced"))


def _shell_words(place: Path, parts: Sequence[Path]) -> list[str]:
    """What names the parts of runs in one place to a shell: a pattern where it matches nothing else that would be sent."""
    for pattern in ("*/wandb/offline-run-*", "*/wandb/latest-run"):
        matched = {path.resolve() for path in place.glob(pattern)}
        if len(parts) > 1 and {path for path in matched if not _is_synced(path)} == set(parts):
            return [pattern if place == Path.cwd() else f"{_for_shell(place)}/{pattern}"]
    return [_for_shell(part) for part in parts]


def _for_shell(path: Path) -> str:
    """A path below the working folder, or an absolute one, quoted."""
    here = Path.cwd()
    return path_word(path.relative_to(here) if here in path.parents else path)
