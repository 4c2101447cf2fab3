"""What an option is called, and when it acts. Nothing here imports torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

ALWAYS = (0.0, 1.0)


def spelling(kind: type) -> tuple[str, str]:
    """Group and option of a class: the folder and the file that define it; in a script no group, and the name of the class."""
    return _spelled(kind.__module__, kind.__name__)[:2]


def called(option: Identity | type[Identity]) -> str:
    """What an option, or its class, is called: "group/option"."""
    return _spelled(option.__module__, option.__name__)[2] if isinstance(option, type) else option.state_key


@cache  # Lightning asks for it at each hook of each step
def _spelled(module: str, name: str) -> tuple[str, str, str]:
    package, _, file = module.rpartition(".")
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    group, option = package.rpartition(".")[2], file if package else words
    return group, option, f"{group}/{option}" if group else option


class Identity:
    """The names of an option, and the share of the training in which it acts."""

    when: tuple[float, float] = ALWAYS

    @property
    def option(self) -> str:
        """The option's name on the command line: the name of the file that defines the class; in a script, of the class."""
        return spelling(type(self))[1]

    @property
    def group(self) -> str:
        """The config group: the name of the folder that holds that file; none for a class of a script or a notebook."""
        return spelling(type(self))[0]

    @property
    def state_key(self) -> str:
        """The name under which checkpoints keep this option's state, and by which messages name it: "group/option"."""
        kind = type(self)
        if kind.option is Identity.option and kind.group is Identity.group:
            return _spelled(kind.__module__, kind.__name__)[2]
        return f"{self.group}/{self.option}" if self.group else self.option  # a class may name itself

    def acts(self, progress: tuple[int, int | None]) -> bool:
        """Whether the option acts in this step, by `when`.

        Args:
            progress: steps done and steps in all, as `Module.progress`.
        """
        done, total = progress
        return self.when == ALWAYS or (total is not None and self.when[0] * total <= done < self.when[1] * total)

    def same_so_far(self, done: int, before: int, now: int) -> bool:
        """Whether the first `done` steps of a training of `before` steps are those of one of `now` steps, by `when`.

        Where they are not, a run that goes on with another limit is refused. Whatever else depends on the steps in all
        (`Module.progress`) says so here, too. It is also asked of an option of which nothing is built yet: then it says no if in doubt.
        """
        if self.when == ALWAYS:
            return True
        first, last = ([math.ceil(share * total) for total in (before, now)] for share in self.when)
        earlier, later = (range(start, min(end, done)) for start, end in zip(first, last, strict=True))
        return earlier == later


def plain(value: object) -> Any:
    """A value as JSON has it; an object by the name of its class."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, float)) else type(value).__name__
