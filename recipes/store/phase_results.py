"""What `result.json` tells of the phases of a run. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.config.kinds import is_count, is_flag, is_number, is_numbers, is_text, is_texts

SEEN = "trained_on_validation"  # of a phase, and of the ruler of a metric
ENTRY = {
    **{"name": is_text, "metrics": is_numbers, "until": is_numbers, "epochs": is_number, "seconds": is_number},
    **dict.fromkeys(("begins", "steps", "samples_per_step", "best_step"), is_count),
    **dict.fromkeys(("stopped_early", SEEN), is_flag),
    "events": is_texts,
}


def is_phase(value: object) -> bool:
    """What a phase has done."""
    return (
        isinstance(value, Mapping)
        and {*value, "events"} == ENTRY.keys()  # those of older runs have none
        and all(ENTRY[name](value[name]) for name in value)
    )


def is_phases(value: object) -> bool:
    """A list of what each phase has done."""
    return isinstance(value, list) and all(map(is_phase, value))


def trained_on_validation(result: Mapping[str, Any]) -> bool:
    """Whether the last phase of a run has trained on the samples that its val/… are of."""
    return any(phase[SEEN] for phase in _phases(result)[-1:])


def phase_lines(result: Mapping[str, Any]) -> list[str]:
    """What each phase has done, a line each; empty of a run of one."""
    phases = _phases(result)
    return (
        [_line(number, phase, str(result.get("monitor"))) for number, phase in enumerate(phases, 1)] if len(phases) > 1 else []
    )


def _phases(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return result.get("phase_results") or []


def _line(number: int, phase: Mapping[str, Any], monitor: str) -> str:
    ended = ", stopped early" * phase["stopped_early"] + "".join(
        f", until {name} < {value:.4g}" for name, value in phase["until"].items() if value is not None
    )
    chosen = phase["metrics"].get(monitor)
    shown = "" if chosen is None else f", {monitor} {chosen:.4f}"
    best = f", best step {phase['best_step']:,}{shown}"
    data = ", on training and validation samples" if phase[SEEN] else best
    return f"phase {number}  {phase['name']}: {phase['steps']:,} steps in {phase['seconds']:.1f} s{ended}{data}"
