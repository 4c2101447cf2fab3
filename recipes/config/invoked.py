"""How a command was started, so that the commands it prints can be typed where the reader stands. Nothing here imports torch."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from recipes.config.own import own_words
from recipes.config.quoting import path_word, quote

COMMANDS = ("train", "evaluate", "predict", "export", "compare")
INSTALLED = "lightning-recipes"  # the command that an installation makes
WITH_CONFIGS = ("train", "evaluate", "predict", "export")  # these take --config-dir
PLAIN = re.compile(rf"\bpython ({'|'.join(COMMANDS)})\.py\b((?: -m)? (?:resume|sweep)=)?")
OF_RUNS = ("evaluate", "predict", "export")  # these, and a resume, take a run, whose own classes are to be typed again


def as_typed(text: str) -> str:
    """A text with its commands, written as in the project's own folder, as they are typed here."""

    def shown(found: re.Match[str]) -> str:
        again = own_words(sys.argv[1:]) if found[1] in OF_RUNS or found[2] else []
        return " ".join([invocation(found[1]), *map(quote, again)]) + (found[2] or "")

    return PLAIN.sub(shown, text)


def invocation(name: str) -> str:
    """What `python NAME.py` is here, with the config folder that this command was given.

    The commands are where the one that runs is: `python elsewhere/train.py`, or `python -m recipes` or the installed
    `lightning-recipes`, which have all of them.
    """
    script = Path(sys.argv[0] if sys.argv else "")
    folder = _config_folder() if name in WITH_CONFIGS else None
    given = "" if folder is None else f" --config-dir {quote(folder)}"
    if script.parts[-2:] == ("recipes", "__main__.py"):
        return "python -m recipes" + ("" if name == "train" else f" {name}") + given
    if script.stem == INSTALLED:
        return f"{_installed(script)} {name}{given}"
    if script.suffix == ".py" and script.stem in COMMANDS:
        return f"python {path_word(script.with_name(f'{name}.py'))}{given}"
    return f"python {name}.py{given}"


def _installed(script: Path) -> str:
    """The installed command: its name is enough where the shell finds it by that."""
    found = shutil.which(INSTALLED)
    return INSTALLED if found and os.path.realpath(found) == os.path.realpath(script) else path_word(script)


def _config_folder() -> str | None:
    for number, word in enumerate(sys.argv):
        if word in ("--config-dir", "-cd"):
            return sys.argv[number + 1] if number + 1 < len(sys.argv) else None
        if word.startswith("--config-dir="):
            return word.partition("=")[2]
    return None
