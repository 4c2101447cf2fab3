"""Jobs as forks of a process that is warm: see :mod:`recipes.launch.warm`. Nothing here imports torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from recipes.config.run_files import OUTPUT
from recipes.launch import parent, warm
from recipes.store.files import open_to_append


class Forked:
    """A job that is a fork of a warm process."""

    def __init__(self, of: Warm) -> None:
        self.of = of
        self.number: int | None = None  # until it has begun
        self.returncode: int | None = None
        self.signals: list[int] = []  # sent before that
        self.lost = False  # with the process that it was forked of

    @property
    def group(self) -> int | None:
        """The number of its process group; None until it has begun."""
        return self.number

    def poll(self) -> int | None:
        """Its exit code; None until it has ended."""
        self.of.listen()
        return self.returncode

    def send(self, number: int) -> None:
        """Send a signal to the job and the processes that it started."""
        if self.number is None:
            self.signals.append(number)
        elif self.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.number, number)

    def begin(self, number: int) -> None:
        """It has begun."""
        self.number = number
        while self.signals:
            self.send(self.signals.pop(0))


class Warm:
    """A process that imports what jobs need, and is forked for each of them. It ends with this one.

    Args:
        command: of a job, without its words.
        environment: of all jobs, as far as what is imported reads it: threads are counted once.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.environment = {**warm.NO_THREAD, **environment, warm.SOCKET: str(theirs.fileno())}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[theirs.fileno()],
            env=parent.of_mine(self.environment),
        )
        theirs.close()
        self.asked: list[Forked] = []  # and not begun
        self.jobs: dict[int, Forked] = {}

    @property
    def lives(self) -> bool:
        """Whether it can be forked."""
        return self.process.poll() is None

    def start(
        self, words: Sequence[str], folder: Path, lifeline: int, environment: Mapping[str, str], composed: bytes = b""
    ) -> Forked:
        """Start a job, which prints into its folder, and ends when nobody has the other end of its lifeline any more.

        What its words are composed to, if that is known, it need not compose again.
        """
        job = Forked(self)
        with tempfile.TemporaryFile() as file, open_to_append(folder / OUTPUT) as output:
            file.write(warm.request(words, environment, Path.cwd(), composed))
            file.seek(0)
            with suppress(OSError):  # it is gone, as is heard next
                socket.send_fds(self.socket, [b"job"], [file.fileno(), output.fileno(), lifeline])
        self.asked.append(job)
        return job

    def listen(self) -> None:
        """Hear which jobs have begun and ended."""
        while True:
            try:
                line = self.socket.recv(256, socket.MSG_DONTWAIT).decode()
            except BlockingIOError:
                return
            except OSError:
                line = ""
            if not line:
                self._lose()
                return
            what, number, *code = line.split()
            if what == "begun":
                job = self.jobs[int(number)] = self.asked.pop(0)
                job.begin(int(number))
            else:
                self.jobs.pop(int(number)).returncode = int(code[0])

    def _lose(self) -> None:
        """It is gone: so are its jobs, soon."""
        for job in (*self.asked, *self.jobs.values()):
            job.send(signal.SIGTERM)
            job.returncode, job.lost = -signal.SIGKILL, True
        self.asked, self.jobs = [], {}

    def close(self) -> None:
        """Let it end: nobody asks any more."""
        self.socket.close()
        self.process.wait()
