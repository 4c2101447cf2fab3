"""What a command prints never decides about what it does: a lost terminal, a closed or full output end no run.

Whether it could be printed counts for what is there to be read only, such as a table: :func:`expect_printed`.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)  # nobody will ever read there again
PATIENCE = 10.0  # seconds to wait for a reader that does not block us, but reads nothing


class NotPrinted(Exception):
    """What was asked for could not be printed; the message is for the user."""


class Output(io.RawIOBase):
    """A descriptor that takes everything; `error` is the first reason for which something was lost."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        return os.isatty(self.descriptor)

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Write all of it, or lose it."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                left = left[os.write(self.descriptor, left) :]
            except BlockingIOError as error:
                if not select.select([], [self.descriptor], [], PATIENCE)[1]:
                    self._lose(error)
                    break
            except OSError as error:  # a full disk may have room again
                self._lose(error)
                break
        return size

    def _lose(self, error: OSError) -> None:
        self.error = self.error or error
        if error.errno in GONE:
            _point_to_nothing(self.descriptor)  # for libraries and processes that write there, too


def make_safe() -> None:
    """Let no write to the standard streams fail from now on, and no file of ours take the place of one that is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _point_to_nothing(descriptor)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper) and not _output(stream):
            with suppress(OSError):
                stream.flush()
            raw = Output(descriptor)
            stream = io.TextIOWrapper(
                raw if stream.write_through else io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors="replace",  # a terminal that lacks a letter shows a question mark
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, f"__{name}__", stream)
        setattr(sys, name, stream)


def expect_printed() -> None:
    """Raise :class:`NotPrinted` unless all that was printed has gone out; a reader that has seen enough is no fault."""
    sys.stdout.flush()
    output = _output(sys.stdout)
    if output and output.error and output.error.errno != errno.EPIPE:
        raise NotPrinted(f"the standard output cannot be written ({output.error.strerror})")


def _output(stream: object) -> Output | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, Output) else None


def _point_to_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)
