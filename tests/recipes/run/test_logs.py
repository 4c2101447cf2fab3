"""Who is told of a warning."""

import io
import logging
import os
import re
import sysconfig
import warnings
from pathlib import Path

import pytest

from recipes.config.run_files import LOG
from recipes.run.logs import LogFile, log_to
from recipes.run.provenance import ROOT


def places(tmp_path):
    """Files in which a warning arises, and whether the user is told."""
    own = tmp_path / "mine.py"
    installed = [tmp_path / "python3" / folder / "torch" / "nn.py" for folder in ("site-packages", "dist-packages")]
    for file in (own, *installed):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    library = Path(sysconfig.get_path("purelib")) / "pytest" / "__init__.py"
    return {
        ROOT / "plugins" / "adversarial" / "_guard.py": True,
        ROOT / "recipes" / "run" / "logs.py": True,
        own: True,
        library: False,
        Path(re.__file__): False,
        Path(__file__): False,  # of the project, and no part of a run
        Path("<string>"): False,
        Path(f"<{'long' * 100}>"): False,
        **dict.fromkeys(installed, False),
    }


def test_warnings_of_ours_and_of_the_users_files_are_shown_all_others_are_in_the_log(tmp_path, capsys):
    found = places(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with log_to(tmp_path) as journal:
            journal.pass_on()
            for number, place in enumerate(found):
                warnings.warn_explicit(f"number {number}.", UserWarning, str(place), 1)
    told, log = capsys.readouterr().err, (tmp_path / LOG).read_text()
    for number, shown in enumerate(found.values()):
        assert (f"number {number}." in told) == shown and f"number {number}." in log
    assert all(line.startswith("warning: ") for line in told.splitlines())


@pytest.mark.parametrize("folder", ["plugins", "recipes"])
def test_our_warnings_name_our_files(folder):
    """A warning counts as ours by the file that it names, which must not be that of whoever called."""
    files = [*(ROOT / folder).rglob("*.py")]
    levels = [level for file in files for level in re.findall(r"stacklevel=(\w+)", file.read_text())]
    assert set(levels) <= {"1"} and (levels or folder == "recipes")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no disk that is always full")
def test_a_disk_that_is_full_is_not_told_by_a_traceback(tmp_path, capsys):
    file = LogFile(tmp_path / LOG, delay=True)
    with open("/dev/full", "wb", buffering=0) as full:
        file.setStream(io.TextIOWrapper(full, write_through=True))
        file.handle(logging.makeLogRecord({"msg": "lost"}))
        assert capsys.readouterr().err == ""
        file.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
        assert "TypeError" in capsys.readouterr().err  # a mistake in the code
