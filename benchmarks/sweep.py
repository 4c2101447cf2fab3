"""Seconds that a job of a sweep takes beside its training: `python -m benchmarks.sweep`.

The same jobs by three ways of starting one, in turn: warm (a fork of a process that has imported all), fresh (a process that imports it
again), and Hydra's own basic launcher, which trains one job after the other in one process by a script that is as plain as can be. Of each
way the time between two jobs' ends is taken, less what a job says that its training took; so what comes once, such as the first
import, is told by itself. The memory is what a job shares with no other process, at most.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks import machine, print_table
from recipes.launch.room import of_its_own

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("max_epochs=1", "trainer.accelerator=cpu", "trainer.progress=false")
BASIC = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import hydra
from omegaconf import OmegaConf

@hydra.main(config_path={str(ROOT / "conf")!r}, config_name="train", version_base="1.3")
def task(config):
    from hydra.core.hydra_config import HydraConfig
    from pathlib import Path
    from recipes.config.catalogue import Catalogue
    from recipes.config.composing import finish
    from recipes.run.train import train
    folder = HydraConfig.get().runtime.output_dir
    train(finish(Catalogue(), config, list(HydraConfig.get().overrides.task)), Path(folder), [])

OmegaConf.register_new_resolver("run_id", lambda: "basic")
task()
"""


WAYS = {"warm": 2, "fresh": 1, "basic": 0}  # generations below the command in which jobs are
LOOK = 0.2  # seconds between two looks at the memory, which hold up what they look at


class Sweep:
    """A sweep that has ended.

    Attributes:
        jobs: for each when it has ended, in seconds after the start, and the seconds of it that were training.
        memory: the most bytes that a job has shared with no other process.
    """

    def __init__(self, folder: Path, jobs: int, command: Sequence[str], depth: int) -> None:
        self.memory, self._ended = 0.0, threading.Event()
        began = time.time()
        with open(folder / "errors", "w+") as errors:
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
            watch = threading.Thread(target=self._watch, args=(process.pid, depth))
            watch.start()
            code = process.wait()
            self._ended.set()
            watch.join()
            errors.seek(0)
            said = errors.read().strip()[-2000:]
        results = sorted(folder.glob("sweep/*/result.json"), key=lambda path: path.stat().st_mtime)
        if code or len(results) != jobs:
            raise RuntimeError(f"{' '.join(command)} ended with {code}, {len(results)} results: {said}")
        self.jobs = [(path.stat().st_mtime - began, float(json.loads(path.read_text())["seconds"])) for path in results]

    def _watch(self, number: int, depth: int) -> None:
        while not self._ended.wait(LOOK):
            self.memory = max([self.memory, *map(of_its_own, below([number], depth))])


def below(numbers: Sequence[int], depth: int) -> list[int]:
    """The processes so many generations below some."""
    for _ in range(depth):
        found = []
        for number in numbers:
            for path in Path(f"/proc/{number}/task").glob("*/children"):
                with suppress(OSError):
                    found += [int(child) for child in path.read_text().split()]
        numbers = found
    return list(numbers)


def beside(found: Sequence[tuple[float, float]]) -> list[float]:
    """The seconds of each job but the first one that were not training."""
    return [end - before - training for (before, _), (end, training) in itertools.pairwise(found)]


def command(way: str, jobs: int, logger: str, basic: Path) -> list[str]:
    """What starts a sweep."""
    words = ["-m", f"seed={','.join(map(str, range(jobs)))}", f"logger={logger}", *WORDS]
    if way == "basic":
        return [
            sys.executable,
            str(basic),
            *words,
            "hydra/launcher=basic",
            "hydra.sweep.dir=sweep",
            "hydra.sweep.subdir=${hydra.job.num}",
        ]
    return [sys.executable, str(ROOT / "train.py"), *words, f"hydra.launcher.start={way}", "sweep=sweep"]


def main(words: Sequence[str] | None = None) -> None:
    """Time all ways in turn and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--rounds", type=int, default=3, help="times that each way is taken")
    parser.add_argument("--jobs", type=int, default=20, help="jobs of a sweep, together over all rounds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--loggers", nargs="+", default=["csv", "wandb"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    options = parser.parse_args(words)
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "WANDB_MODE": "offline"}
    jobs = max(2, -(-options.jobs // options.rounds))
    ways = [(way, logger) for logger in options.loggers for way in options.ways]
    found: dict[tuple[str, str], list[Sweep]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, logger in ways:
            with tempfile.TemporaryDirectory() as place:
                basic = Path(place) / "basic.py"
                basic.write_text(BASIC, encoding="utf-8")
                found[way, logger].append(Sweep(Path(place), jobs, command(way, jobs, logger, basic), WAYS[way]))
    print(f"{options.rounds} rounds of {jobs} jobs, Python {sys.version.split()[0]}, {machine()}, {options.threads} threads")
    rows = []
    for (way, logger), sweeps in found.items():
        each = [seconds for sweep in sweeps for seconds in beside(sweep.jobs)]
        first = statistics.median(sweep.jobs[0][0] - sweep.jobs[0][1] for sweep in sweeps)
        cells = [statistics.median(each), min(each), max(each), first]
        memory = max(sweep.memory for sweep in sweeps) / 1e6
        rows.append([f"{way}, logger={logger}", *(f"{cell:.2f}" for cell in cells), f"{memory:.0f} MB"])
    print_table(["beside training", "seconds a job", "least", "most", "the first one", "memory of its own"], rows)


if __name__ == "__main__":
    main()
