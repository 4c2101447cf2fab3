"""Running the checks of a package: a line for each option and check, and a table at the end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from plugins.base import RecipeError
from recipes.check.cases import Case
from recipes.check.failing import told
from recipes.check.outcome import NotAsked, Wrong
from recipes.check.refusals import TIMES
from recipes.config.errors import one_line

OK, REFUSED, FAILED, NOT_ASKED = "ok", "refused", "FAILED", "–"


@dataclass(frozen=True)
class Outcome:
    """What came out of a case."""

    case: Case
    status: str
    text: str = ""
    refusals: Sequence[str] = ()


def outcome_of(case: Case) -> Outcome:
    """Run a case in a folder of its own."""
    torch.set_num_threads(1)  # what comes out is compared to the bit
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = case.run(Path(folder))
        except NotAsked as reason:
            return Outcome(case, NOT_ASKED, str(reason))
        except Wrong as reason:
            return Outcome(case, FAILED, str(reason))
        except RecipeError as error:
            group = case.option.split("/")[0]  # data may need a place that only its user knows
            return Outcome(case, REFUSED if group == "data" else FAILED, one_line(error))
        except Exception as error:
            return Outcome(case, FAILED, told(case.option, error))
    if isinstance(found, dict) and found:
        lines = [f"{TIMES.join(pair)}: {text}" for pair, text in found.items()]
        return Outcome(case, REFUSED, f"{len(lines)} of its selections", lines)
    return Outcome(case, OK)


def run(cases: Sequence[Case], say: Callable[[str], object]) -> list[Outcome]:
    """Run all; `say` is given a line when a case ends."""
    outcomes = []
    for number, case in enumerate(cases, 1):
        begun = time.perf_counter()
        outcome = outcome_of(case)
        seconds = time.perf_counter() - begun
        told = f": {' '.join(outcome.text.split())}" if outcome.text else ""
        say(f"[{number}/{len(cases)}] {case.option} {case.check} ({seconds:.1f} s) {outcome.status}{told}")
        outcomes.append(outcome)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Option by check; then the refusals, and what has failed, a line each."""
    checks = list(dict.fromkeys(outcome.case.check for outcome in outcomes))
    options = list(dict.fromkeys(outcome.case.option for outcome in outcomes))
    cells = {(outcome.case.option, outcome.case.check): outcome for outcome in outcomes}
    rows = [["option", *checks]]
    rows += [[option, *(_cell(cells.get((option, check))) for check in checks)] for option in options]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    refusals = dict.fromkeys(line for outcome in outcomes for line in outcome.refusals)
    lines += ["", f"refused, in one line before the first batch ({len(refusals)}):", *refusals] if refusals else []
    own = [outcome for outcome in outcomes if outcome.status == REFUSED and not outcome.refusals]
    lines += ["", "not tried:", *_told(own)] if own else []
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    lines += ["", f"{FAILED}:", *_told(failed)] if failed else []
    if any(outcome.status == NOT_ASKED for outcome in outcomes):
        lines += ["", f"{NOT_ASKED}: not asked of this option"]
    lines += ["", f"{len(options)} options, {len(outcomes)} checks, {len(failed)} of them failed"]
    return "\n".join(lines)


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return f"{len(outcome.refusals)} refused" if outcome.refusals else outcome.status


def _told(outcomes: Iterable[Outcome]) -> list[str]:
    return [f"{outcome.case.option}, {outcome.case.check}: {' '.join(outcome.text.split())}" for outcome in outcomes]


def has_failed(outcomes: Iterable[Outcome]) -> bool:
    """Whether anything is wrong."""
    return any(outcome.status == FAILED for outcome in outcomes)
