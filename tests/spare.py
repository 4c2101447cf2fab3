"""A fork that stands by to be the warm parent of a sweep whose command is a fork itself: see tests/forked.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from recipes.launch import parent


class Spare:
    """Stands for `subprocess` where a sweep starts its warm parent, which takes seconds of imports: the first one is a fork, too.

    It is made before the command has done anything, so that it is as clean as the process that it stands for.

    Args:
        differs: which variables of an environment need a real start.
        end: runs a script and ends the process.
    """

    DEVNULL = subprocess.DEVNULL

    def __init__(self, differs: Callable[[Mapping[str, str]], set[str]], end: Callable[[str], NoReturn]) -> None:
        self._differs = differs
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._number: int | None = os.fork()
        if self._number == 0:
            self._ours.close()
            _stand_by(theirs, end)
        theirs.close()

    def Popen(
        self, command: list[str], env: dict[str, str], pass_fds: list[int], **options: Any
    ) -> subprocess.Popen[bytes] | Fork:
        """As `subprocess.Popen`."""
        if self._number is None or self._differs(env):
            return subprocess.Popen(command, env=env, pass_fds=pass_fds, **options)
        message = json.dumps({"words": command[1:], "env": env, "descriptor": pass_fds[0]}).encode()
        socket.send_fds(self._ours, [message], pass_fds)
        fork, self._number = Fork(self._number), None
        return fork


class Fork:
    """What a sweep asks of the process that it forks jobs of."""

    def __init__(self, number: int) -> None:
        self.pid = number
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None: it runs."""
        return self._ended(os.WNOHANG)

    def wait(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._ended(0)

    def _ended(self, options: int) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, options))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode


def _stand_by(asked: socket.socket, end: Callable[[str], NoReturn]) -> NoReturn:
    """Wait to be the process that a command starts."""
    parent.end_with(os.getppid())
    message, descriptors, _, _ = socket.recv_fds(asked, 2**20, 1)
    asked.close()
    if not message:
        os._exit(0)
    os.setsid()
    what: dict[str, Any] = json.loads(message)
    os.dup2(descriptors[0], what["descriptor"], inheritable=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.environ.clear()
    os.environ.update(what["env"])
    sys.argv = what["words"]
    end(sys.argv[0])
