import json
import signal
import subprocess
import sys

import pytest

from tests.command import ROOT, variables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
SCRIPT = """
import atexit, json, os, signal, sys, time

from recipes.launch import slurm_job
from recipes.launch.forked_rank import ForkedRank
from recipes.launch.identity import here

atexit.register(lambda: print("of the job", flush=True))
slurm_job.received.append("SIGTERM")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
here()
ends, other = os.pipe(), os.open("/dev/null", os.O_RDONLY)

def look():
    atexit.register(lambda: print("of the rank", flush=True))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    print(json.dumps({
        "rank": here().rank, "received": slurm_job.received, "environment": sorted(os.environ),
        "handlers": handlers == [signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN],
        "session": os.getsid(0) == os.getpid(), "closed": not os.path.exists(f"/proc/self/fd/{other}"),
        "open": os.path.exists(f"/proc/self/fd/{ends[0]}"),
    }), flush=True)
    sys.exit(7)

def fail():
    raise OverflowError("much")

def sleep():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    time.sleep(100)

environment = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LIGHTNING_RECIPES_WORLD": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "LIGHTNING_RECIPES_LIFELINE": str(ends[0])}
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as who starts ranks does, so that none hears it before it is ready
ranks = [ForkedRank(what, environment, [other]) for what in (look, fail, sleep, sleep)]
ranks[2].send_signal(signal.SIGTERM)
ranks[3].kill()
for rank in ranks:
    rank.wait()
    rank.send_signal(signal.SIGTERM)  # it is gone: nobody is hit
print(json.dumps([rank.poll() for rank in ranks]), os.path.exists(f"/proc/self/fd/{other}"), flush=True)
"""


def test_a_fork_starts_as_a_process_of_its_own_and_ends_as_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=variables(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (seen,) = (json.loads(line) for line in lines if line.startswith("{"))
    assert seen["rank"] == 1 and seen["received"] == [] and set(seen["environment"]) >= {"RANK", "WORLD_SIZE"}
    assert not {"PATH", "HOME"} & set(seen["environment"])
    assert all(seen[name] for name in ("handlers", "session", "closed", "open"))
    assert lines[-2] == f"[7, 1, {-signal.SIGTERM}, {-signal.SIGKILL}] True" and lines[-1] == "of the job"
    assert lines.count("of the job") == 1 and lines.count("of the rank") == 1
    assert "OverflowError: much" in done.stderr
