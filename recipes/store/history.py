"""What held in a run, and from which step on: `history` in `result.json`. Nothing here imports torch.

A run that is resumed with other words, by another version or on another machine is not the run that its last command makes.
Its history has an entry for each stretch of steps in which the same held::

    {"step": 40, "command": [...], "changed": {"trainer.precision": ["32-true", "bf16-mixed"]},
     "versions": {...}, "git_commit": ..., "machine": ..., "samples_per_step": 32}

`changed` has the config keys, dotted, that were others before. A run that goes on as it was gets no entry, and results of older
versions have no history: they tell of the last words alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from recipes.config.effect import flatten, has_effect
from recipes.config.errors import printable
from recipes.config.quoting import quote, show

FACTS = ("versions", "git_commit", "machine")  # what an entry keeps beside its words
OF_THE_COMMAND = ("resume", "overwrite", "explain", "sweep")  # keys of one command, not of the run
# keys of which a change that is not refused leaves the run what it would be without a stop: limits (recipes/run/limits.py), and
# where the data lies, whose content is compared
EXACT = ("max_epochs", "max_steps", "data.path", "data.labels", "data.root")
SHOWN = 3  # changes in a line
LONGEST = 60  # letters of a value in a line

Entry = dict[str, Any]


def entry(result: Mapping[str, Any], step: int = 0, changed: Mapping[str, list[Any]] | None = None) -> Entry:
    """What holds from a step on, as a result tells it."""
    facts = {name: result.get(name) for name in FACTS}
    kept = {"step": step, "command": list(result.get("command") or []), "changed": dict(changed or {}), **facts}
    return kept | ({"samples_per_step": size} if (size := result.get("samples_per_step")) else {})


def history_of(result: Mapping[str, Any]) -> list[Entry]:
    """The entries of a result; of an older one, without a history, what it tells of itself."""
    return [dict(each) for each in result.get("history") or [entry(result)]]


def go_on(earlier: Mapping[str, Any], now: Mapping[str, Any], step: int) -> list[Entry]:
    """The history of a run that goes on.

    Args:
        earlier: the result of the run so far.
        now: the result that is begun: its config, command and facts.
        step: steps done, from which the run goes on. What held from a later step on, or from this one, has left nothing.
    """
    kept, changed = _until(earlier, now, step)
    new = entry(now, step, changed)
    same = all(new[name] == kept[-1].get(name) for name in FACTS)
    return kept if same and not changed else [*kept, new]


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any], step: int) -> dict[str, list[Any]]:
    """The config keys, dotted, that were others in the last of the steps done: what they were, and what they are now."""
    return _until(earlier, now, step)[1]


def _until(earlier: Mapping[str, Any], now: Mapping[str, Any], step: int) -> tuple[list[Entry], dict[str, list[Any]]]:
    entries = history_of(earlier)
    kept = [each for each in entries if each["step"] < step] or entries[:1]
    before, after = (flatten(_kept(each.get("config", now["config"]))) for each in (earlier, now))
    for dropped in reversed(entries[len(kept) :]):
        before |= {key: old for key, (old, _) in dropped["changed"].items()}
    # older runs lack keys of the whole run that have come since then, and have their defaults
    keys = (key for key in {**before, **after} if key in before or not _of_every_run(key))
    different = {key: [before.get(key), after.get(key)] for key in keys if before.get(key) != after.get(key)}
    return kept, {key: values for key, values in different.items() if key not in OF_THE_COMMAND}


def _kept(value: Any) -> Any:
    """A config as result.json keeps it, which has null for what is not finite."""
    if isinstance(value, Mapping):
        return {name: _kept(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_kept(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _of_every_run(key: str) -> bool:
    return "." not in key or key.startswith("trainer.")


def parts(key: str) -> bool:
    """Whether a run in which this key was changed on the way differs from one that had the last value from its start."""
    return has_effect(key) and key not in EXACT


def resumed(result: Mapping[str, Any]) -> str:
    """What sets a run apart from one that was never stopped: `trainer.precision 32-true→16-mixed at step 40`; empty where
    it is as good as one."""
    told = []
    for each in result.get("history") or []:
        words = [_change(key, *values) for key, values in each["changed"].items() if parts(key)]
        if words:
            told.append(f"{_listed(words)} at step {each['step']}")
    return ", ".join(told)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """A line for each entry of a history behind the first: what was changed, and from which step on."""
    entries = history_of(result)
    for before, each in pairwise(entries):
        yield f"from step {each['step']}: {_listed([*_changes(each), *_facts(before, each)], 2 * SHOWN)}"


def commands(result: Mapping[str, Any]) -> list[str]:
    """The commands of a run that no single one repeats, each with its step; empty where the last command does."""
    if not resumed(result):
        return []
    said = [
        f"from step {each['step']}: {' '.join(['python train.py', *map(quote, each['command'])])}"
        for each in history_of(result)
    ]
    return [printable(line) for line in said]


def _changes(each: Entry) -> list[str]:
    return [_change(key, *values) for key, values in each["changed"].items()]


def _change(key: str, before: Any, after: Any) -> str:
    return printable(f"{key} {_short(before)}→{_short(after)}")


def _facts(before: Entry, after: Entry) -> list[str]:
    """The versions and the machine where they are others."""
    old, new = (each.get("versions") or {} for each in (before, after))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    told = [_change(name, old.get(name), new.get(name)) for name in names]
    if before.get("git_commit") != after.get("git_commit"):
        told.append(_change("source", *((each.get("git_commit") or "unknown")[:7] for each in (before, after))))
    if before.get("machine") != after.get("machine"):
        told.append(_change("machine", before.get("machine"), after.get("machine")))
    return told


def _short(value: Any) -> str:
    text = " ".join(show(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _listed(words: Sequence[str], most: int = SHOWN) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
