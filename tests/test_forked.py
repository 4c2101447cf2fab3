"""A forked command is as good as a real start."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests import forked
from tests.command import command, variables

SHOW = """\
import atexit, os, sys
print(__name__, sys.argv[1:], os.getcwd(), dict(sorted(os.environ.items())).get("GIVEN"), sys.stdin.read(), os.getpgid(0) == os.getpid())
atexit.register(lambda: print("the end"))
print("on the other", file=sys.stderr)
"""
ENDS = {
    "falls off the end": "",
    "a code": "import sys; sys.exit(7)",
    "a text": "import sys; sys.exit('a text')",
    "nothing": "import sys; sys.exit()",
    "a failure": "1 / 0",
    "Ctrl-C": "raise KeyboardInterrupt",
    "at once": "import os; os._exit(9)",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.3), print('done'))).start()",
    "text that is not flushed": "import sys; sys.stdout.write('x' * 100_000)",
}


def both(path, *words, stdin="", **environment):
    env = variables(**environment)
    real = subprocess.run(
        [sys.executable, path, *words],
        cwd=path.parent,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    return real, forked.command(str(path), *words, cwd=path.parent, env=env, stdin=stdin)


def test_what_it_is_given(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SHOW)
    real, fake = both(path, "a=1", "ü b", stdin="read me", GIVEN="this")
    assert (fake.returncode, fake.stdout, fake.stderr) == (real.returncode, real.stdout, real.stderr)
    assert "['a=1', 'ü b']" in fake.stdout and "this read me True\nthe end\n" in fake.stdout


@pytest.mark.parametrize("kind", ENDS)
def test_how_it_ends(tmp_path, kind):
    path = tmp_path / "script.py"
    path.write_text(ENDS[kind])
    real, fake = both(path)
    assert (fake.returncode, fake.stdout) == (real.returncode, real.stdout)
    assert fake.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["optimizer=adm"], ["--hlep"]])
def test_commands_of_the_project(tmp_path, words):
    real, fake = command("train.py", *words, cwd=tmp_path), command("train.py", *words, cwd=tmp_path, forked=True)
    assert (fake.returncode, fake.stdout, fake.stderr) == (real.returncode, real.stdout, real.stderr)


def test_what_the_project_computes_at_its_start_is_made_anew(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(forked.ROOT)!r})\nfrom recipes.launch import failures; from recipes.cli import hydra_task\nprint(hydra_task.run_id(), failures.BEGAN)"
    )
    begin = time.time()
    first, second = (forked.command(str(path), cwd=tmp_path, env=variables()).stdout.split() for _ in range(2))
    assert first[0] != second[0] and begin < float(first[1]) < float(second[1])


def test_one_that_takes_too_long_is_killed_with_what_it_started(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\nprint(child.pid, flush=True)\nchild.wait()"
    )
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        forked.command(str(path), cwd=tmp_path, env=variables(), timeout=2)
    child = int(caught.value.output)
    end = time.monotonic() + 60
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child)


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("import time; time.sleep(1000)")
    code = (
        f"import sys, threading; sys.path.insert(0, {str(forked.ROOT)!r})\nfrom tests import forked\nfrom tests.command import variables\n"
        f"server = forked._the_server(); print(server.process.pid, flush=True)\n"
        f"forked.command({str(path)!r}, cwd={str(tmp_path)!r}, env=variables(), timeout=900)"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=variables(), stdout=subprocess.PIPE, text=True) as starter:
        server = int(starter.stdout.readline())
        while not (children := os.popen(f"pgrep -P {server}").read().split()):
            time.sleep(0.2)
        starter.send_signal(signal.SIGKILL)
    end = time.monotonic() + 60
    while any(map(alive, [server, *map(int, children)])) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, [server, *map(int, children)]))


def test_what_is_read_at_a_real_start_is_refused(tmp_path):
    with pytest.raises(ValueError, match="OMP_NUM_THREADS"):
        command("train.py", "--help", cwd=tmp_path, forked=True, OMP_NUM_THREADS="3")
