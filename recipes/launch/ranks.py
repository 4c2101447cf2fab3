"""The ranks of one run: processes that train it together, each on a device.

On one machine `train.py` starts them itself, watches them, hands signals on, and tells in one line what went wrong in any of
them; elsewhere `srun` and `torchrun` start them. Whoever did, a rank that fails leaves a note in the run's folder, for what
the others have to say is mostly that they have lost it.

Nothing here imports torch, unless GPUs are to be counted: a signal may come while a run is still loading.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import yaml

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.config.untrusted import read_json
from recipes.launch import slurm_job as slurm
from recipes.launch.identity import LIFELINE, WATCHED, here, in_job, repeated
from recipes.store.files import open_to_append, write_text
from recipes.store.folder import result_or_empty, write_result

ERRORS = "errors"  # folder of what each rank has to say about its failure
# what a rank says that has lost another one
CONSEQUENCE = re.compile(r"connection (closed|reset)|broken pipe|socket|nccl|gloo|c10d|store|timed? ?out|another process", re.I)
LOST = re.compile(r"^srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)\S*: (?P<what>.+)$", re.M)
MEMORY = " (is there enough memory?)"
STOPPING = b"\nstopping after this step; Ctrl-C once more stops at once\n"
GRACE = 5.0  # seconds for the others to fail by themselves, after a rank has failed
LATE = 30.0  # seconds that a shared file system may take to show what another node has written
PATIENCE = 3.0  # seconds after which every rank has left its note that ever will
BEGAN = time.time()


class RankError(Exception):
    """One of several ranks has failed; the message is for the user."""


def rank() -> int:
    """The number of this process among those that train together."""
    return here().rank


def world() -> int:
    """How many processes were started to train together, this one among them."""
    return here().world


def node() -> int:
    """The number of this machine among those that train together."""
    return here().node


def is_watched() -> bool:
    """Whether a process of `train.py` watches this one and tells what goes wrong in it."""
    return here().launcher == "own"


def devices_here(trainer: Mapping[str, Any]) -> int:
    """The number of devices to train on, on each machine."""
    devices = trainer["devices"]
    if isinstance(devices, int) and devices > 0:
        return devices
    if trainer["accelerator"] not in ("auto", "gpu", "cuda"):
        return 1
    import torch

    return torch.cuda.device_count() or 1


def asking() -> list[signal.Signals]:
    """The signals that ask for an end, without those that a job in the background is not to hear."""
    names = slurm.SIGNALS if in_job() else slurm.ASKING
    numbers = [signal.Signals[name] for name in names]
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def end_with_parent() -> None:
    """End as if stopped, with a saved state, once the process is gone that has started this one, however it went."""
    if (descriptor := os.environ.pop(LIFELINE, None)) is None:
        return
    alive: IO[bytes] = os.fdopen(int(descriptor), "rb", buffering=0)

    def wait() -> None:
        alive.read(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


# ------------------------------------------------------------------ errors


def fail(folder: Path, error: BaseException, code: int, is_mistake: bool) -> None:
    """In one of several ranks: leave a word, and end the process at once, before it waits for the others."""
    if world() == 1 or isinstance(error, RankError):  # the latter is told by the process that watches
        return
    if isinstance(error, KeyboardInterrupt):
        end(code)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun wants all to end as soon as one has
    with suppress(RecipeError):  # the disk may be what failed
        leave_note(folder, rank(), one_line(error), is_mistake)
    if not is_mistake:
        _write_traceback(folder, error)
    if slurm.ranks() > 1:
        print(f"error: {one_line(error)}", file=sys.stderr)
        write_failure(folder, first_error(folder))
    elif not is_watched():
        _tell_unwatched(folder)
    end(code)


def end(code: int) -> None:
    """End the process with all it has started, without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_note(folder: Path, number: int, error: str, is_mistake: bool = False) -> None:
    """Note why a rank has failed."""
    job = here().job
    host = job.host if job and slurm.ranks() > 1 else ""
    write_text(
        folder / ERRORS / f"{number}.json",
        json.dumps({"rank": number, "host": host, "error": error, "mistake": is_mistake, "start": _this_start()}) + "\n",
    )


def _write_traceback(folder: Path, error: BaseException) -> None:
    """Where the user is told to look: in `train.log`, but in a job's output where Slurm has one for all ranks."""
    lines = [line for part in traceback.format_exception(error) for line in part.splitlines()]
    if slurm.ranks() > 1 or node():
        print("\n".join(lines), file=sys.stderr)
    else:
        write_log(folder, "\n".join(["ERROR the rank failed", *lines]))


def write_log(folder: Path, text: str, number: int | None = None) -> None:
    """Add lines about a rank to `train.log`, which several processes of one machine write to, each whole lines at once."""
    marked = mark(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 {text}", rank() if number is None else number)
    with open_to_append(folder / "train.log") as file:
        file.write(f"{marked}\n".encode())


def mark(text: str, number: int) -> str:
    """A message with its rank before each line."""
    return "\n".join(f"rank {number}: {line}" for line in text.split("\n"))


def _note_files(folder: Path) -> list[Path]:
    return [path for path in (folder / ERRORS).glob("*.json") if path.stem.isdigit()]


def forget_errors(folder: Path) -> None:
    """Remove what ranks have said."""
    for path in _note_files(folder):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is something else in it, or it is not there
        (folder / ERRORS).rmdir()


def forget_earlier(folder: Path) -> None:
    """Remove what ranks have said at an earlier start of the run, in the same folder."""
    for path in _note_files(folder):
        note = read_note(path)
        started = note and (note["start"] == _this_start() if slurm.ranks() > 1 else path.stat().st_mtime >= BEGAN)
        if not started:
            path.unlink()
    with suppress(OSError):  # there is a later one, or none was ever
        (folder / ERRORS).rmdir()


def _this_start() -> str:
    """What tells the ranks of this start of a Slurm job from those of others, which clocks of several nodes may not."""
    job = here().job
    return f"{job.number}.{job.step}.{job.restarts}" if job and slurm.ranks() > 1 else ""


def end_with_others(folder: Path) -> None:
    """In a rank of Slurm's: end at once when Slurm asks for it because another one has failed.

    Python hears no signal while torch waits for that rank; only a thread does, of what Python's own handler writes to a pipe.
    """
    if slurm.ranks() == 1:
        return
    heard, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def wait() -> None:
        while signal.SIGTERM not in os.read(heard, 64):
            pass
        until = time.monotonic() + LATE
        while time.monotonic() < until:
            if any(note["start"] == _this_start() for note in notes(folder)):
                write_failure(folder, first_error(folder))
                end(1)
            time.sleep(0.5)

    threading.Thread(target=wait, daemon=True).start()


def notes(folder: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """What ranks have said about their failures, the earliest first."""
    paths = [path for path in _note_files(folder) if path.lstat().st_mtime >= since]
    found = [read_note(path) for path in sorted(paths, key=lambda path: path.lstat().st_mtime_ns)]
    return [note for note in found if note is not None]


def read_note(path: Path) -> dict[str, Any] | None:
    """What a rank has said; None where it is nothing that a rank says."""
    try:
        note = read_json(path)
    except (OSError, RecipeError):
        return None
    kinds = {"rank": int, "host": str, "error": str, "mistake": bool, "start": str}
    return note if all(type(note.get(name)) is kind for name, kind in kinds.items()) else None


def first_note(found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The note that tells what went wrong first: the others have only lost that rank; None where all have lost another one."""
    mistakes = [note for note in found if note["mistake"]]
    return next((note for note in (*mistakes, *found) if note["mistake"] or not CONSEQUENCE.search(note["error"])), None)


def in_words(note: Mapping[str, Any]) -> str:
    """A note in a line."""
    if note["mistake"]:
        return str(note["error"])
    return f"rank {note['rank']}{' on ' + note['host'] if note['host'] else ''}: {note['error']}"


def first_error(folder: Path, output: str = "") -> str:
    """What went wrong first among several ranks, in a line; empty if nothing is known.

    Args:
        folder: the run's folder.
        output: what a job of Slurm has printed, `srun` too.
    """
    found = notes(folder)
    if first := first_note(found):
        return in_words(first)
    for lost in LOST.finditer(output):
        if "Exited" not in lost["what"]:
            memory = MEMORY if lost["what"].startswith("Killed") else ""
            return f"rank {lost['rank']} on {lost['node']}: {lost['what'].lower()}{memory}"
    return in_words(found[0]) if found else ""


def _tell_unwatched(folder: Path) -> None:
    """Where nobody watches the ranks: the one whose note counts tells it, and the lowest one that is left writes the result."""
    until = time.time() + PATIENCE
    while (first := first_note(found := notes(folder, BEGAN))) is None and time.time() < until:
        time.sleep(0.1)
    numbers = {rank(), *(note["rank"] for note in found)}
    lowest = min(numbers) == rank()
    if first is None:
        silent = ", ".join(str(number) for number in range(world()) if number not in numbers)
        line = in_words(found[0]) if found and not silent else f"rank {silent}: ended without a word{MEMORY}"
    else:
        line = in_words(first)
    if first["rank"] == rank() if first else lowest:
        print(f"error: {line}; log {folder / 'train.log'}", file=sys.stderr)
    if lowest:
        write_failure(folder, line)


def write_failure(folder: Path, line: str, since: int = int(BEGAN * 1e9)) -> None:
    """Say in the result of a run why it failed, unless it was last written before: it may be that of a run which goes on.

    Args:
        folder, line: the run's folder, and why.
        since: nanoseconds of the clock.
    """
    result = result_or_empty(folder)
    if result.get("status") in ("running", "failed") and _changed(folder) > since:
        write_result(folder, result | {"status": "failed", "error": line})


# ------------------------------------------------------------------ ranks of our own


def to_start(config: Mapping[str, Any]) -> int:
    """How many ranks are to be started on this machine; 0: this process trains itself."""
    if here().launcher not in ("alone", "nodes") or config["explain"]:
        return 0
    count = devices_here(config["trainer"])
    return count if count * config["trainer"]["num_nodes"] > 1 else 0


def check_started(trainer: Mapping[str, Any]) -> None:
    """Refuse processes that were started side by side but are not those which the config wants."""
    slurm.check_ranks(trainer)
    who, nodes = here(), trainer["num_nodes"]
    if who.launcher == "alone":
        if nodes > 1:
            raise RecipeError(
                f"trainer.num_nodes={nodes}: nothing has started processes on {nodes} machines; on a cluster with Slurm type "
                f"python train.py -m hydra/launcher=slurm trainer=ddp trainer.num_nodes={nodes}"
            )
    elif who.launcher == "nodes":
        if who.node >= nodes:
            raise RecipeError(
                f"NODE_RANK={who.node} in the environment, and trainer.num_nodes={nodes}: the machines are numbered from 0; type "
                f"trainer=ddp trainer.num_nodes={who.node + 1} or more, or for one machine unset NODE_RANK"
            )
    elif who.launcher in ("torchrun", "hand"):
        devices = devices_here(trainer)
        fits = who.world == devices * nodes and who.local_rank < devices and who.local_world in (0, devices)
        if not fits or (who.launcher == "hand" and who.rank != who.node * devices + who.local_rank):
            on_each = who.local_world or (who.world if not who.node else (who.rank - who.local_rank) // who.node)
            raise RecipeError(
                f"{who.world} processes were started for one run, this one as number {who.local_rank} of machine {who.node}, and "
                f"trainer.devices={devices} with trainer.num_nodes={nodes} wants {devices * nodes}: type trainer=ddp "
                f"trainer.devices={on_each} trainer.num_nodes={who.world // max(1, on_each)}"
            )


def given() -> dict[str, Any] | None:
    """What the process that has started this rank wants it to train; None elsewhere."""
    if not is_watched():
        return None
    slurm.listen(*slurm.ASKING)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, asking())
    arguments = yaml.safe_load(sys.stdin.buffer)
    return {**arguments, "folder": Path(arguments["folder"])}


def train(count: int, config: Mapping[str, Any], folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """Train with `count` ranks on this machine; returns what `result.json` holds.

    All of them get one and the same resolved config. A signal is handed on to each once; whatever ends this process ends them,
    with a saved state.

    Raises:
        RecipeError: a mistake of the user's that a rank has found.
        RankError: a rank has failed or was killed.
    """
    before = _changed(folder)
    watch = Watch(folder)
    watch.run(count, int(config["trainer"]["num_nodes"]), {"config": dict(config), "folder": str(folder), "words": list(words)})
    result = result_or_empty(folder)
    found = notes(folder)
    line = first_error(folder)
    if not node():
        forget_errors(folder)
    first = first_note(found)
    if not any(watch.codes.values()) or (result.get("status") in ("stopped", "diverged") and _changed(folder) > before):
        return result
    if first is None and watch.asked:  # it was not left the time to save
        stopped = {"status": "stopped", "stopped_by": watch.asked[0]}
        if result.get("status") in ("running", "failed") and _changed(folder) > before:
            write_result(folder, result | stopped)
        return stopped
    number, code = next((number, code) for number, code in watch.codes.items() if code)
    line = line or f"rank {number}: ended with code {code}"
    write_failure(folder, line, before)
    if first and first["mistake"]:
        raise RecipeError(line)
    log = folder / "train.log"
    raise RankError(f"{line}; log {log}" if log.exists() else line)


def _changed(folder: Path) -> int:
    """When the result was written last."""
    try:
        return (folder / "result.json").stat().st_mtime_ns
    except OSError:
        return 0


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

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.codes: dict[int, int] = {}
        self.asked: list[str] = []

    def run(self, count: int, nodes: int, arguments: Mapping[str, Any]) -> None:
        """Return once all have ended."""
        lifeline = os.pipe()  # never written to
        meeting = hold_port()
        previous = {number: signal.signal(number, self._hand_on) for number in asking()}
        try:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, asking())  # until all are there; in a rank until it listens
            try:
                self._start(count, nodes, arguments, lifeline[0], meeting.getsockname()[1])
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
            for end in lifeline:
                os.close(end)

    def _start(self, count: int, nodes: int, arguments: Mapping[str, Any], lifeline: int, port: int) -> None:
        again = repeated(os.environ)
        environment = {name: value for name, value in os.environ.items() if name not in again}
        environment |= {WATCHED: str(count * nodes), "WORLD_SIZE": str(count * nodes)}
        environment |= {LIFELINE: str(lifeline), "NODE_RANK": str(node())}
        if nodes == 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        # threads of several ranks would wait for each other
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        for local in range(count):
            number = node() * count + local
            with tempfile.TemporaryFile() as file:
                file.write(yaml.safe_dump(dict(arguments)).encode())
                file.seek(0)
                self.processes[number] = subprocess.Popen(
                    [sys.executable, *sys.argv],
                    stdin=file,
                    start_new_session=True,  # Ctrl-C comes from here only
                    pass_fds=[lifeline],
                    env=environment | {"LOCAL_RANK": str(local), "RANK": str(number)},
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
                    if code < 0 and time.monotonic() < limit:
                        self._note_killed(number, -code)
            if any(self.codes.values()) or self.asked.count("SIGINT") > 1:
                limit = min(limit, time.monotonic() + GRACE)
            if time.monotonic() > limit:
                self._kill()
            time.sleep(0.05)

    def _note_killed(self, number: int, by: int) -> None:
        line = f"killed by signal {by}{MEMORY if by == signal.SIGKILL else ''}"
        leave_note(self.folder, number, line)
        if (self.folder / "train.log").exists() and not node():
            write_log(self.folder, f"ERROR {line}", number)

    def _kill(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def is_first_rank() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0
