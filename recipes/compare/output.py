"""Where a comparison leaves its files: in a folder where it overwrites none but those of an earlier comparison."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from plugins.errors import RecipeError
from recipes.compare.datasets import as_file
from recipes.config.errors import from_cell
from recipes.config.run_files import RESULT

PICTURE, PAGE = b"Matplotlib", b'<meta http-equiv="Content-Security-Policy"'
HEAD = 4096  # bytes in which a file shows whose it is
SIGNS = {  # how ours begin, or what is in their beginning
    "compare.csv": b"label,baseline,n,mean,",
    "runs.csv": b"label,seed,fold",  # and er, or of the data
    "compare.md": b"\n|---|",
    "compare.tex": b"\n% needs \\usepackage{booktabs}",
    "ranks.csv": b"label,mean_rank",
    "wandb-workspace.json": b"{",
}


def output_folder(places: Sequence[Path], asked: Path | None, endings: Sequence[str] = ("",)) -> Path:
    """The folder for the files, which is made; figures and reports of an earlier comparison of other data sets go.

    Args:
        places: what is compared; a single folder that holds runs gets the files itself.
        asked: the folder that the user has named.
        endings: of the names of figures and reports, one for each data set.

    Raises:
        RecipeError: it cannot be written, or has files of other programs under the names of ours.
    """
    folder = asked
    if folder is None and len(places) == 1 and not (places[0] / RESULT).exists():
        folder = places[0]
    if folder is None:
        folder = Path("comparisons", *datetime.now().strftime("%Y-%m-%d %H-%M-%S").split())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "not permitted"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise RecipeError(f"the output folder {folder} cannot be written ({reason}); choose another one: --output FOLDER")
    signs = SIGNS | {f"compare{ending}.png": PICTURE for ending in endings}
    signs |= {f"report{ending}.html": PAGE for ending in endings}
    if others := [name for name, sign in signs.items() if not is_ours(folder / name, sign)]:
        raise RecipeError(
            f"{folder} holds {', '.join(others)}, which no comparison has written: choose another folder: --output FOLDER"
        )
    for ending in ("", *(f"-{name}" for name in as_file(_data_sets(folder / "ranks.csv")))):
        for path, sign in ((folder / f"compare{ending}.png", PICTURE), (folder / f"report{ending}.html", PAGE)):
            if path.name not in signs and path.is_file() and is_ours(path, sign):
                path.unlink(missing_ok=True)
    (folder / "ranks.csv").unlink(missing_ok=True)  # that of another program is refused above
    return folder


def _data_sets(ranks: Path) -> list[str]:
    """The data sets of an earlier comparison, as its table of ranks names them, also where it has no row."""
    with suppress(OSError, ValueError, StopIteration, csv.Error), open(ranks, encoding="utf-8", newline="") as file:
        return [from_cell(name) for name in next(csv.reader(file))[2:]]
    return []


def is_ours(path: Path, sign: bytes) -> bool:
    """Whether a file may be written anew: it is one of ours, or there is none; what cannot be written is told when it is."""
    if path.is_symlink() or not path.is_file():
        return not path.is_symlink()
    try:
        with open(path, "rb") as file:
            return sign in file.read(HEAD)
    except OSError:
        return False
