"""Functions of the tests on several ranks, or in a process of their own.

What may go wrong by chance where processes are started from a test cannot here:

- pytest's process has threads, of torch, of wandb and of its own, whose locks a fork copies as they are. Ranks are forked from
  a process that has one thread, and renew torch's pool of threads before they start any.
- Ranks meet by a file in a new folder: no port has to be free, no name of this machine has to be found.
- No rank ends before all have done their part: one that ends while another still connects to it would take that down.
- What they return are files. A rank that fails or dies is told at once, with what it said, and none is left in the end.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
AFTER_A_FAILURE = 5.0  # seconds for the others to say what they have seen of it
DEATH = 1  # prctl's PR_SET_PDEATHSIG


def on_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function returns on each of several ranks, which gloo connects.

    Args:
        count: of ranks; 1: a process without a process group.
        function: of a module, by whose name the ranks import it.
        arguments: of the function; they are pickled, and so is what it returns.

    Raises:
        AssertionError: a rank has failed or died; with what each had to say.
    """
    from tests.command import LIMIT, variables
    from tests.forked import command

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "call").write_bytes(pickle.dumps((function, arguments)))
        env = variables(CUDA_VISIBLE_DEVICES="", GLOO_SOCKET_IFNAME="lo")
        done = command("tests/ranks.py", name, str(count), cwd=ROOT, env=env, timeout=LIMIT)
        print(done.stdout, done.stderr)  # shown by pytest when the test fails
        assert done.returncode == 0, done.stderr[-5000:]
        return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(count)]


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, which has one thread and may fork."""
    (found,) = on_ranks(1, function, *arguments)
    return found


def train_all(target: Path, configs: Mapping[str, dict[str, Any]]) -> None:
    """What each of two ranks does in a sweep: one training for each config; the first rank saves what came out."""
    import torch
    import torch.distributed as dist

    from recipes.check.processes import train_one

    found = {}
    for number, (name, config) in enumerate(configs.items()):
        try:
            found[name] = train_one(config, target.with_name("runs") / str(number))
        except Exception:
            traceback.print_exc()
            found[name] = {"error": traceback.format_exc()[-1500:]}
    if dist.get_rank() == 0:
        torch.save(found, target)


# ------------------------------------------------------------------ in the process that has one thread


def main(folder: Path, count: int) -> int:
    """Fork the ranks, and wait for them; the exit code."""
    import torch

    torch.set_num_threads(1)
    function, arguments = pickle.loads((folder / "call").read_bytes())  # what it needs is imported once for all
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads before the ranks are forked"
    open_until, all_done = os.pipe()
    ranks = {}
    for rank in range(count):
        if (number := os.fork()) == 0:
            os.close(all_done)
            be(rank, count, folder, open_until, lambda: function(*arguments))
        ranks[rank] = number
    os.close(open_until)
    try:
        return watch(ranks, folder)
    finally:
        os.close(all_done)  # now they end
        for number in ranks.values():
            os.waitpid(number, 0)


def renew_threads() -> None:
    """Let torch replace its pool of threads, which a fork does not take along, while this process has one thread.

    torch does so at the first use after a fork, without a lock: of two threads that come at once one finds no pool, and all ends
    with "Invalid thread pool!".
    """
    import torch

    torch.set_num_threads(torch.get_num_threads())


def watch(ranks: dict[int, int], folder: Path) -> int:
    """Wait until all have returned; a failure ends the others."""
    waiting = dict(ranks)
    limit = float("inf")
    while waiting and time.monotonic() < limit:
        for rank, number in list(waiting.items()):
            if (folder / str(rank)).exists():
                del waiting[rank]
            elif ended := os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                del waiting[rank]
                limit = min(limit, time.monotonic() + AFTER_A_FAILURE)
                print(f"rank {rank} has ended, {ended.si_status}", file=sys.stderr)
        time.sleep(0.005)
    if limit == float("inf"):
        return 0
    for number in ranks.values():
        os.kill(number, signal.SIGKILL)
    return 1


def be(rank: int, count: int, folder: Path, open_until: int, part: Callable[[], Any]) -> NoReturn:
    """One rank: do the part, leave what it returns, wait for the others."""
    ctypes.CDLL(None).prctl(DEATH, signal.SIGKILL)  # with the process that has forked it
    renew_threads()
    if count > 1:
        # they meet in a file; an address is there because whoever starts ranks names one
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    try:
        import torch.distributed as dist

        if count > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
        (folder / f"{rank}.part").write_bytes(pickle.dumps(part()))
        (folder / f"{rank}.part").rename(folder / str(rank))
        code = 0
    except BaseException:
        print(f"rank {rank}:\n{traceback.format_exc()}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 0:
        os.read(open_until, 1)
    os._exit(code)


def run(words: Sequence[str]) -> int:
    """As a script."""
    sys.path[0] = str(ROOT)  # and not this folder
    return main(Path(words[0]), int(words[1]))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
