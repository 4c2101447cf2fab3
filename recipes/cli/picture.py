"""The picture of a run is left in its folder once all is printed: what draws takes half a second to import."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from recipes.config.environment import told
from recipes.config.errors import one_line, printable
from recipes.config.run_files import PICTURE

DRAWN = ("finished", "diverged", "pruned")  # and what Ctrl-C has stopped: whoever else asks for an end is in a hurry


def leave_picture(folder: Path, result: Mapping[str, Any]) -> None:
    """Draw a run that this process has trained, and print where; a mishap is told in a line, and the run has ended all the same."""
    if result.get("status") not in DRAWN and result.get("stopped_by") != "SIGINT":
        return
    with suppress(KeyboardInterrupt):
        if not (folder / PICTURE).exists() and _draw(folder):
            print(printable(f"picture  {folder / PICTURE}"), flush=True)


def _draw(folder: Path) -> bool:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of fonts
    try:
        with told():
            from recipes.compare.run_picture import write_picture
        return write_picture(folder)
    except Exception as error:  # whatever a library of pictures does not take
        print(printable(f"no picture of this run: {one_line(error)}"), file=sys.stderr)
        return False
