"""The list of what is checked of a package: every check for every option, alone and beside ours. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from plugins.errors import RecipeError
from recipes.check.package import Package
from recipes.config.spelling import suggest

ALONE = {  # the name of a check, and the function that makes it
    "file": "parameters.file",
    "parameters": "parameters.declared",
    "strength zero": "alone.strength_zero",
    "resume and order": "alone.resume_and_order",
    "initial weights": "alone.initial_weights",
    "bf16": "alone.bf16",
    "accumulation": "alone.accumulation",
    "draws and inputs": "batches.draws_and_inputs",
    "batch kept": "batches.batch_kept",
    "own draws": "batches.own_draws",
    "pictures": "batches.pictures",
    "other data": "batches.other_data",
    "other forms": "forms.other_forms",
    "predictions": "predictions.probable",
    "whole run": "real_run.finishes",
}
BESIDE = {"refusals": "beside.refused", "pairs": "beside.pairs"}
IN_PROCESSES = {"two processes": "processes.ddp", "shards": "processes.fsdp"}
CHECKS = (*ALONE, *BESIDE, *IN_PROCESSES)


@dataclass(frozen=True)
class Case:
    """One check of one option; `run` is given an empty folder, and raises what it finds."""

    option: str
    check: str
    run: Callable[[Path], object]


def cases(package: Package, quick: bool = False, only: Sequence[str] = ()) -> list[Case]:
    """All cases, option by option.

    Args:
        package: whose options are checked.
        quick: without those that take processes of their own.
        only: names of options, groups or checks that are wanted; of both kinds: what has one of each.
    """
    checks = [check for check in CHECKS if not (quick and check in IN_PROCESSES)]
    options = package.options
    known = {word for option in options for word in (option, *option.split("/"))}
    for word in only:
        if word not in known and word not in checks:
            left_out = " is left out by --quick" if word in CHECKS else ""
            raise RecipeError(f"--only {word}{left_out or ': ' + suggest(word, [*checks, *options], '--only {}')}")
    if wanted := [check for check in checks if check in only]:
        checks = wanted
    if wanted := [word for word in only if word not in CHECKS]:
        options = [option for option in options if {option, *option.split("/")} & set(wanted)]
    return [
        Case(option, check, partial(_run, package, check, option, tuple(options))) for option in options for check in checks
    ]


def _run(package: Package, check: str, option: str, together: tuple[str, ...], folder: Path) -> object:
    module, _, function = {**ALONE, **BESIDE, **IN_PROCESSES}[check].partition(".")
    call = getattr(import_module(f"recipes.check.{module}"), function)
    if check in BESIDE:
        return call(option, folder, package)
    return call(option, folder, together) if check in IN_PROCESSES else call(option, folder)
