"""`ROOM=BYTES python tests/limited.py WORDS`: train.py in a process that may take so much memory beyond what the libraries have taken.

The limit is that of private memory that can be written, `ulimit -d`; a process that is started from here has it too.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def taken() -> int:
    """Bytes of this process that count."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import recipes.run.train  # noqa: F401
    from recipes.cli.train import main

    if (
        resource.getrlimit(resource.RLIMIT_DATA)[1] == resource.RLIM_INFINITY
    ):  # else it is that of the process that started this one
        limit = taken() + int(os.environ["ROOM"])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    main(sys.argv[1:])
