"""Runs that tests hold where they want them, with the technique in the folder `installed`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.cluster.slurm import wait_for

INSTALLED = Path(__file__).parent / "installed"


class Gates:
    """The gates of a test's runs, which have `+diagnostics=[gates]` among their words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PYTHONPATH": str(INSTALLED), "GATES": str(folder)}

    def close(self, *names: str) -> None:
        """Hold runs at `step-17` or in `validation-17`."""
        for name in names:
            (self.folder / name).touch()

    def open(self, name: str) -> None:
        """Let them go on."""
        (self.folder / name).unlink()

    def wait(self, name: str, ranks: int = 1) -> None:
        """Wait until so many ranks stand before a gate."""
        wait_for(lambda: len(list(self.folder.glob(f"{name}.reached-*"))) == ranks, 300)

    def weights(self) -> dict[str, list[str]]:
        """Digests of the weights in the end, by seed, one a rank."""
        found = defaultdict(list)
        for path in self.folder.glob("weights-*"):
            found[path.name.split("-")[1]].append(path.read_text())
        return dict(found)
