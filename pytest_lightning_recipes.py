"""A plugin of pytest's: `pytest --recipes-check PACKAGE` adds each check of each option of a package as a test.

pytest imports this at every start, also in projects that only happen to share an environment with ours. So it stands by itself, and
imports nothing of this project before a package is named: packages called `recipes` or `plugins` may be another's there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

OPTION, INI, QUICK = "--recipes-check", "recipes_check", "--recipes-quick"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flags and the key of the configuration file."""
    group = parser.getgroup("lightning-recipes")
    group.addoption(
        OPTION,
        action="append",
        default=[],
        metavar="PACKAGE",
        help="check the options of a package (or of a folder of config files), each as a test; can be given several times",
    )
    group.addoption(QUICK, action="store_true", help="of these checks leave out what takes processes of its own")
    parser.addini(INI, "packages whose options are checked, as with --recipes-check", type="args", default=[])


def pytest_collection(session: pytest.Session) -> None:
    """Find the packages before anything is collected: a wrong name is a mistake in the command."""
    names = list(dict.fromkeys([*session.config.getoption(OPTION), *session.config.getini(INI)]))
    if not names:
        return
    from plugins.errors import RecipeError
    from recipes.check.package import find_package

    try:
        session.config.stash[FOUND] = packages = [find_package(name) for name in names]
        for package in packages:
            _ = package.options  # that there is one to check is part of the name
    except RecipeError as error:
        raise pytest.UsageError(str(error)) from None


FOUND = pytest.StashKey[list[Any]]()


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks behind the tests that were collected."""
    for package in config.stash.get(FOUND, []):
        from recipes.check.cases import cases

        package.open()
        for case in cases(package, config.getoption(QUICK)):
            name = f"{case.option}-{case.check.replace(' ', '-')}"
            node = Checked.from_parent(session, name=name, nodeid=f"{package.name}::{name}", case=case)
            items.append(node)


class Checked(pytest.Item):
    """One check of one option."""

    def __init__(self, *, case: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.case = case

    def runtest(self) -> None:
        """Run it; what does not apply is skipped."""
        from recipes.check.report import FAILED, NOT_ASKED, REFUSED, outcome_of

        outcome = outcome_of(self.case)
        for line in outcome.refusals:
            self.add_report_section("call", "refused", line + "\n")
        if outcome.status == FAILED:
            raise CheckFailed(outcome.text)
        if outcome.status == NOT_ASKED or (outcome.status == REFUSED and not outcome.refusals):
            pytest.skip(outcome.text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The line alone, without a traceback of ours."""
        if isinstance(excinfo.value, CheckFailed):
            return f"{self.case.option}, {self.case.check}: {excinfo.value}"
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is said to stand."""
        return Path(self.case.option), None, self.name


class CheckFailed(Exception):
    """A check has found something."""
