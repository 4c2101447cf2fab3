"""The command `python -m recipes check PACKAGE`: all checks over the options of a package, alone and beside ours.

Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from plugins.errors import RecipeError
from recipes.check.cases import CHECKS, IN_PROCESSES, cases
from recipes.check.package import find_package
from recipes.cli.exits import FAILED, exit_with, run_command
from recipes.cli.printing import expect_printed
from recipes.config.environment import told
from recipes.config.invoked import invocation
from recipes.config.spelling import nearest

DESCRIPTION = """\
Check the options that a package brings: each alone, and in pairs beside all of ours. An option must be exact at strength
zero, go on bit for bit after a stop, come out the same in any order, in parts, in bf16 and in two processes, draw from its
own generators, leave its inputs alone, and train in every pair or be refused in one line."""
EXAMPLES = f"""\
Checks: {", ".join(CHECKS)}.

Examples
  python -m recipes check own_techniques                     the package with the entry point own_techniques
  python -m recipes check own_techniques --quick             without: {", ".join(IN_PROCESSES)}
  python -m recipes check own_techniques --only wrapper --only pairs
  python -m recipes check my_configs/                        a folder with GROUP/OPTION.yaml

The pairs that are refused are printed. Where the package has a refusals.yaml beside its groups, it must list them, and no others:
  regularizer/mine × wrapper: words of the refusal           a group stands for each of its options

Exit code 0: all is well, 1: something has failed, 2: a mistake in these words."""


def main(words: Sequence[str] | None = None) -> None:
    """`check`: ends the process with an exit code unless all went well."""
    exit_with(lambda: run_command(_check, words))


def parser() -> argparse.ArgumentParser:
    """Its flags."""
    made = argparse.ArgumentParser(
        prog=invocation("check"),
        description=DESCRIPTION,
        epilog=EXAMPLES.replace("python -m recipes check", invocation("check")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("package", nargs="?", metavar="PACKAGE", help="name of an installed package, or a folder of config files")
    made.add_argument("--quick", action="store_true", help="leave out what takes processes of its own")
    made.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="an option, a group or a check; can be given several times",
    )
    made.add_argument("--version", action="store_true", help="the versions of this project and its libraries")
    return made


def _check(words: Sequence[str]) -> int:
    known = parser()

    def refuse(message: str) -> NoReturn:
        raise RecipeError(message)

    known.error = refuse  # type: ignore[method-assign]
    given, unknown = known.parse_known_args(words)
    for word in unknown:
        flags = ["quick", "only", "help", "version"]
        close = nearest(word.partition("=")[0].lstrip("-"), flags)
        raise RecipeError(
            f"there is no {'flag' if word.startswith('-') else 'use for'} {word}"
            + ("; did you mean --" + close + "?" if close else "; one PACKAGE, and --" + ", --".join(flags))
        )
    if not given.package:
        raise RecipeError("which package? type the name of one that is installed, or a folder of config files")
    package = find_package(given.package)
    found = cases(package, given.quick, given.only)
    package.open()
    with told():
        from recipes.check.report import has_failed, run, table

    print(f"{package.name}: {package.folder}", flush=True)
    outcomes = run(found, lambda line: print(line, file=sys.stderr, flush=True))
    print(table(outcomes))
    expect_printed()
    return FAILED if has_failed(outcomes) else 0
