"""Seconds to `--help`, to a config error, to the first step: `python -m benchmarks.start`.

Each is the time from starting `python train.py` to what its user waits for, in a process of its own: the end of the
process for the first two, the row of the first step in metrics.csv for the third. What importing torch and Lightning
takes by itself is there to compare with.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, print_table

ROOT = Path(__file__).resolve().parents[1]
TRAIN = (sys.executable, str(ROOT / "train.py"))
FIRST_STEP = ("max_steps=1", "trainer.log_every_n_steps=1", "logger=csv", "trainer.accelerator=cpu")


def until_end(command: Sequence[str], code: int) -> float:
    """Seconds that a command takes; it must end with the exit code `code`."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}, not {code}: {done.stderr.strip()}")
    return seconds


def until_first_step(words: Sequence[str]) -> float:
    """Seconds until a run has logged its first step."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run" / "metrics.csv"
        began = time.perf_counter()
        with open(Path(folder) / "output", "w+") as output:
            process = subprocess.Popen(
                [*TRAIN, *words, f"hydra.run.dir={metrics.parent}"], cwd=ROOT, stdout=output, stderr=output
            )
            while not (metrics.exists() and "step/" in metrics.read_text()):
                if process.poll() is not None:
                    output.seek(0)
                    raise RuntimeError(f"train.py ended with {process.returncode} before its first step: {output.read()}")
                time.sleep(0.002)
            seconds = time.perf_counter() - began
            process.wait()
    return seconds


def main(words: Sequence[str] | None = None) -> None:
    """Time all starts in turn and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--rounds", type=int, default=5, help="times that each is started")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("overrides", nargs="*", help="words for the training, such as model=cnn")
    options = parser.parse_args(words)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    starts = {
        "python train.py --help": lambda: until_end([*TRAIN, "--help"], 0),
        "python train.py optimizer=adm": lambda: until_end([*TRAIN, "optimizer=adm"], 2),
        "python train.py optimizer.lr=abc": lambda: until_end([*TRAIN, "optimizer.lr=abc"], 2),
        "python train.py, first step": lambda: until_first_step([*FIRST_STEP, *options.overrides]),
        "import torch, lightning": lambda: until_end([sys.executable, "-c", "import os, torch, lightning; os._exit(0)"], 0),
    }
    turns = [{name: start() for name, start in starts.items()} for _ in range(options.rounds)]
    print(f"{options.rounds} rounds, Python {sys.version.split()[0]}, {machine()}, {options.threads} threads")
    rows = []
    for name in starts:
        seconds = [turn[name] for turn in turns]
        rows.append([name, f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}", f"{max(seconds):.2f}"])
    print_table(["", "seconds", "least", "most"], rows)


if __name__ == "__main__":
    main()
