"""What libraries read in the environment: a value that they do not take is a mistake like any other. Nothing here imports torch.

A library reads its variables when it is imported, or when it starts, and fails in its own words, deep in its own code. Which
variable it was is told by what it says, by the line of its code that failed, or by the folder it could not use.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from plugins.errors import RecipeError
from recipes.config.errors import one_line, printable

SHELLS = ("PWD", "OLDPWD", "_")  # the shell sets them, and no library reads them
# torch reads these before it could tell: a word without a value ends the process
ALLOCATORS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
OPTION = r"\w+:(\[[^]]*\]|[^,\[\]]+)"
NARROWEST = 20  # columns


@contextmanager
def told() -> Iterator[None]:
    """Libraries are imported or started here: :class:`RecipeError` where one does not take a variable of the environment.

    Garbage is not looked for meanwhile: a sixth of an import would go into looking through what it leaves, which is none.
    """
    for name in ALLOCATORS:
        value = os.environ.get(name, "")
        if value and not re.fullmatch(rf"{OPTION}(,{OPTION})*,?", value):
            refuse(name, "expected OPTION:VALUE, and a comma between several")
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except Exception as error:
        ours = type(error).__module__.startswith(("recipes.", "plugins."))
        named = None if ours else blamed(error, os.environ)
        if named is None:
            raise
        refuse(named, one_line(error))
    finally:
        if collects:
            gc.enable()


def blamed(error: BaseException, environ: Mapping[str, str]) -> str | None:
    """The variable that has led to an exception of a library's; None where none can be told.

    Args:
        error: as it was caught, with its traceback.
        environ: variables and their values.
    """
    names = sorted((name for name in environ if name not in SHELLS), key=len, reverse=True)
    lines = [frame.line or "" for frame in reversed(traceback.extract_tb(error.__traceback__))]
    for text, quote in ((str(error), r"\b"), *((line, "[\"']") for line in lines)):
        for name in names:
            if re.search(f"{quote}{re.escape(name)}{quote}", text):
                return name
    if isinstance(error, OSError) and error.filename:
        failed = Path(os.fsdecode(error.filename))
        for name in names:
            if environ[name] and len(failed.parts) > 1 and Path(environ[name]).is_relative_to(failed):
                return name
    return None


def refuse(name: str, why: str) -> NoReturn:
    """Raise :class:`RecipeError` about the value of a variable."""
    value = printable(os.environ[name])
    shown = value if len(value) <= 40 else f"{value[:40]}..."
    why = why if len(why) <= 300 else f"{why[:300]}..."
    raise RecipeError(f"{name}={shown} in the environment: {why}; give it another value, or type unset {name}") from None


def keep_readable() -> None:
    """Forget a terminal so narrow that a table would be nothing, as some programs that start others tell it."""
    if os.environ.get("COLUMNS", "").isdecimal() and int(os.environ["COLUMNS"]) < NARROWEST:
        del os.environ["COLUMNS"]


def check_wandb(folder: Path) -> None:
    """Refuse variables that wandb does not take, each by itself; without a place for its own logs it would print them.

    Args:
        folder: the run's, where wandb's logs go if the user's cache folder cannot be written.
    """
    import wandb

    for name in (name for name in os.environ if name.startswith("WANDB_")):
        try:
            wandb.Settings().update_from_env_vars({name: os.environ[name]})
        except (ValueError, wandb.Error) as error:
            details: list[Any] = error.errors() if hasattr(error, "errors") else []  # pydantic's
            refuse(name, details[0]["msg"] if details else one_line(error))
    if not has_cache():
        if "WANDB_CACHE_DIR" in os.environ:
            refuse("WANDB_CACHE_DIR", f"{cache_folder(os.environ)} cannot be written")
        os.environ["WANDB_CACHE_DIR"] = str((folder / "wandb" / "cache").absolute())


def has_cache() -> bool:
    """Whether wandb's service has a place for its logs."""
    return _can_be_made(cache_folder(os.environ))


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """Where wandb's service keeps its logs; None if it has no place for them."""
    if given := environ.get("WANDB_CACHE_DIR") or environ.get("XDG_CACHE_HOME"):
        return Path(given)
    home = environ.get("HOME")
    return Path(home, "Library/Caches" if sys.platform == "darwin" else ".cache") if home else None


def _can_be_made(folder: Path | None) -> bool:
    """Whether a folder is there, or can be made, and files in it."""
    try:
        (folder or Path()).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return folder is not None and os.access(folder, os.W_OK | os.X_OK)
