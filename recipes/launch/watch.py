"""The ranks of a run that this process starts, and watches until all have ended. Nothing here imports torch."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from plugins.errors import RecipeError
from recipes.config.run_files import LOG
from recipes.launch import parent, warm
from recipes.launch import slurm_job as slurm
from recipes.launch.failures import (
    GRACE,
    MEMORY,
    RankError,
    _changed,
    first_error,
    first_note,
    forget_errors,
    leave_note,
    notes,
    write_failure,
    write_log,
)
from recipes.launch.forked_rank import ForkedRank
from recipes.launch.gpus import accelerators
from recipes.launch.identity import LIFELINE, WATCHED, repeated
from recipes.launch.ranks import STOPPING, asking, is_watched, lifeline, node, threads_of
from recipes.store.files import is_held
from recipes.store.folder import result_or_empty, write_result


def given() -> dict[str, Any] | None:
    """What the process that has started this rank wants it to train; None elsewhere."""
    if not is_watched():
        return None
    return _heard(yaml.safe_load(sys.stdin.buffer))


def _heard(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a rank, which from now on hears what asks for an end."""
    slurm.listen(*slurm.ASKING)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, asking())
    return {**arguments, "folder": Path(arguments["folder"])}


def train(
    count: int, config: Mapping[str, Any], folder: Path, words: Sequence[str], as_rank: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Train with `count` ranks on this machine; returns what `result.json` holds. `as_rank` is what a rank does that is a fork.

    All of them get one and the same resolved config. A signal is handed on to each once; whatever ends this process ends them,
    with a saved state.

    Raises:
        RecipeError: a mistake of the user's that a rank has found.
        RankError: a rank has failed or was killed.
    """
    before = _changed(folder)
    devices = config["trainer"]["devices"]
    # a process that may have asked CUDA for the number of GPUs is not forked
    forks = warm.is_fork and ((isinstance(devices, int) and devices > 0) or not accelerators())
    watch = Watch(folder, as_rank if forks else None)
    watch.run(count, int(config["trainer"]["num_nodes"]), {"config": dict(config), "folder": str(folder), "words": list(words)})
    result = result_or_empty(folder)
    found = notes(folder)
    line = first_error(folder)
    if not node():
        forget_errors(folder)
    first = first_note(found)
    ours = _changed(folder) > before and not _another_trains(folder)
    if not any(watch.codes.values()) or (result.get("status") in ("stopped", "diverged") and ours):
        return result
    if first is None and watch.asked:  # it was not left the time to save
        stopped = {"status": "stopped", "stopped_by": watch.asked[0]}
        if result.get("status") in ("running", "failed") and ours:
            write_result(folder, result | stopped)
        return stopped
    number, code = next((number, code) for number, code in watch.codes.items() if code)
    line = line or f"rank {number}: ended with code {code}"
    if ours:
        write_failure(folder, line, before)
    if first and first["mistake"]:
        raise RecipeError(line)
    log = folder / LOG
    raise RankError(f"{line}; log {log}" if log.exists() else line)


def _another_trains(folder: Path, patience: float = 1.0) -> bool:
    """Whether the result may be another command's; workers of a rank that was killed hold its lock for a moment."""
    end = time.monotonic() + patience
    while is_held(folder / LOG):
        if time.monotonic() > end:
            return True
        time.sleep(0.02)
    return False


def hold_port() -> socket.socket:
    """A socket with a port of this machine for the ranks to meet at, which nobody else gets as long as the socket is open.

    Rank 0 can listen there all the same, for torch allows addresses to be used again, as this socket does. A port that was only
    looked for could be another program's by the time a rank has loaded torch.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Watch:
    """Starts the ranks of this machine and waits for them.

    Attributes:
        codes: with which the ranks have ended, in that order.
        asked: the signals that have asked for an end.
    """

    def __init__(self, folder: Path, as_rank: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.folder, self.as_rank, self._above = folder, as_rank, lifeline()
        self.processes: dict[int, subprocess.Popen[bytes] | ForkedRank] = {}
        self.codes: dict[int, int] = {}
        self.asked: list[str] = []

    def run(self, count: int, nodes: int, arguments: Mapping[str, Any]) -> None:
        """Return once all have ended."""
        ends = os.pipe()  # never written to
        meeting = hold_port()
        previous = {number: signal.signal(number, self._hand_on) for number in asking()}
        try:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, asking())  # until all are there; in a rank until it listens
            try:
                self._start(count, nodes, arguments, ends, meeting)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for name in slurm.received:  # before there were ranks
                self._hand_on(signal.Signals[name], None)
            self._wait()
        finally:
            self._kill()
            for number, handler in previous.items():
                signal.signal(number, handler)
            meeting.close()
            for end in ends:
                os.close(end)

    def _start(
        self, count: int, nodes: int, arguments: Mapping[str, Any], ends: tuple[int, int], meeting: socket.socket
    ) -> None:
        again = repeated(os.environ)
        environment = {name: value for name, value in os.environ.items() if name not in again}
        environment |= {WATCHED: str(count * nodes), "WORLD_SIZE": str(count * nodes)}
        environment |= {LIFELINE: str(ends[0]), "NODE_RANK": str(node())}
        if nodes == 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.getsockname()[1])}
        environment["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS") or threads_of(count)
        for local in range(count):
            number = node() * count + local
            own = parent.of_mine(environment) | {"LOCAL_RANK": str(local), "RANK": str(number)}
            if (as_rank := self.as_rank) is not None:
                self.processes[number] = ForkedRank(lambda: as_rank(_heard(arguments)), own, [ends[1], meeting.fileno()])
                continue
            with tempfile.TemporaryFile() as file:
                file.write(yaml.safe_dump(dict(arguments), sort_keys=False).encode())
                file.seek(0)
                self.processes[number] = subprocess.Popen(
                    [sys.executable, *sys.argv],
                    stdin=file,
                    start_new_session=True,  # Ctrl-C comes from here only
                    pass_fds=[ends[0]],
                    env=own,
                )

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self.asked.append(signal.Signals(number).name)
        for process in self.processes.values():
            process.send_signal(number)
        if len(self.asked) == 1:
            with suppress(OSError):  # the terminal is closed
                os.write(2, STOPPING)

    def _wait(self) -> None:
        """After the first failure, or a second Ctrl-C, the others have a few seconds only."""
        limit = float("inf")
        while len(self.codes) < len(self.processes):
            for number, process in self.processes.items():
                if number not in self.codes and (code := process.poll()) is not None:
                    self.codes[number] = code
                    if code < 0 and time.monotonic() < limit and signal.Signals(-code).name not in self.asked:
                        self._note_killed(number, -code)
            if self._above is not None and select.select([self._above], [], [], 0)[0]:  # who has started this process is gone
                self._above = None
                self._hand_on(signal.SIGTERM, None)
            if any(self.codes.values()) or self.asked.count("SIGINT") > 1:
                limit = min(limit, time.monotonic() + GRACE)
            if time.monotonic() > limit:
                self._kill()
            time.sleep(0.05)

    def _note_killed(self, number: int, by: int) -> None:
        line = f"killed by signal {by}{MEMORY if by == signal.SIGKILL else ''}"
        leave_note(self.folder, number, line)
        if (self.folder / LOG).exists() and not node():
            write_log(self.folder, f"ERROR {line}", number)

    def _kill(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
