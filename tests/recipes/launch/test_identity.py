"""Who a process is: whole sets of variables are taken, everything else is refused with what to unset."""

import json
import os
import random
import re
import socket
import subprocess
from contextlib import contextmanager

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from plugins.errors import RecipeError
from recipes.launch import ranks
from recipes.launch.identity import FURTHER, LIFELINE, OTHERS, SETS, TORCHRUN, WATCHED, Identity, decide, here
from recipes.run.cluster import cluster_environment
from tests.command import LIMIT, ROOT, SMALL, arguments, command, mistake, torchrun, variables

PLACE = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
OWN = {WATCHED: "4", LIFELINE: "7", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1"}
TORCH = {
    **{TORCHRUN: "none", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"},
    **PLACE,
}
SRUN = {
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
    **{"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"},
}
HAND = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", **PLACE}
NODES = {"NODE_RANK": "1", **PLACE}
CONTAINER = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **PLACE}
ALONE_IN_JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP_OF_ONE = SRUN | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "1"}


def told(who):
    return who.launcher, who.rank, who.world, who.local_rank, who.node


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("alone", 0, 1, 0, 0)),
        (OWN, ("own", 3, 4, 1, 1)),
        (TORCH, ("torchrun", 3, 4, 1, 1)),
        (SRUN, ("srun", 3, 4, 1, 1)),
        (HAND, ("hand", 1, 2, 1, 0)),
        (HAND | {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "NODE_RANK": "1"}, ("hand", 2, 4, 0, 1)),
        (HAND | {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, ("hand", 5, 8, 1, 1)),
        (NODES, ("nodes", 0, 1, 0, 1)),
        (NODES | {"WORLD_SIZE": "4"}, ("nodes", 0, 1, 0, 1)),
        # one process, whoever says so
        (CONTAINER, ("alone", 0, 1, 0, 0)),
        ({"WORLD_SIZE": "1"}, ("alone", 0, 1, 0, 0)),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ("alone", 0, 1, 0, 0)),
        (PLACE, ("alone", 0, 1, 0, 0)),
        (CONTAINER | {TORCHRUN: "none", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0"}, ("alone", 0, 1, 0, 0)),
        (ALONE_IN_JOB, ("alone", 0, 1, 0, 0)),
        (STEP_OF_ONE, ("alone", 0, 1, 0, 0)),
        ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, ("alone", 0, 1, 0, 0)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, ("alone", 0, 1, 0, 0)),
        # several sets: the inner one counts
        (SRUN | TORCH, ("torchrun", 3, 4, 1, 1)),
        (SRUN | OWN, ("own", 3, 4, 1, 1)),
        (SRUN | CONTAINER, ("srun", 3, 4, 1, 1)),
        (SRUN | PLACE | {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, ("srun", 3, 4, 1, 1)),
        (SRUN | {"PMI_RANK": "3", "PMI_SIZE": "4"}, ("srun", 3, 4, 1, 1)),
        (HAND | {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, ("hand", 1, 2, 1, 0)),
    ],
)
def test_whole_sets_are_taken(environ, expected):
    assert told(decide(environ)) == expected


def refused(environ):
    """The error, and the environment after what it says was typed."""
    with pytest.raises(RecipeError) as caught:
        decide(environ)
    line = str(caught.value)
    found = re.fullmatch(
        r"(?P<name>\w+)=(?P<value>.*) in the environment: .+; for one process type unset (?P<unset>[\w ]+)", line
    )
    assert found and found["name"] in environ and found["name"] in found["unset"].split(), line
    assert line.isascii() and line.isprintable()
    return line, {name: value for name, value in environ.items() if name not in found["unset"].split()}


@pytest.mark.parametrize(
    "environ",
    [
        *({name: value} for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_LOCALID") for value in "012"),
        *({name: "1"} for name in ("GROUP_RANK", "JSM_NAMESPACE_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_NODEID")),
        *({name: "2"} for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_NNODES", "JSM_NAMESPACE_SIZE")),
        *({name: "0"} for name in ("WORLD_SIZE", "SLURM_STEP_ID", TORCHRUN, WATCHED)),
        {"WORLD_SIZE": "1", "RANK": "1"},
        {"WORLD_SIZE": "1", "LOCAL_RANK": "1"},
        {"WORLD_SIZE": "1", "NODE_RANK": "1"},
        {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "2"},
        HAND | {"RANK": "2"},
        HAND | {"RANK": "0"},
        HAND | {"NODE_RANK": "2"},
        HAND | {"RANK": "2", "WORLD_SIZE": "4"},  # which machine?
        HAND | {"MASTER_ADDR": ""},
        HAND | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"},
        OWN | {WATCHED: "5"},
        TORCH | {"RANK": "4"},
        SRUN | {"SLURM_PROCID": "4"},
        SRUN | {"SLURM_NODEID": "2"},
        SRUN | HAND,
        SRUN | {"RANK": "0"},
        SRUN | {"WORLD_SIZE": "8"},
        ALONE_IN_JOB | {"SLURM_PROCID": "1"},
        *({"MASTER_PORT": value} for value in ("abc", "", "-1", "65536")),
        {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_LOCAL_RANK": "1", "LSB_JOBID": "5"},
        {"SLURM_JOB_ID": ""},
        {"SLURM_RESTART_COUNT": "often"},
    ],
    ids=lambda environ: " ".join(f"{name}={value}" for name, value in environ.items()),
)
def test_what_is_not_whole_or_does_not_fit_is_refused_with_what_helps(environ):
    decide(refused(environ)[1])


@pytest.mark.parametrize("environ", [OWN, TORCH, SRUN, SRUN | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, HAND, NODES])
def test_each_variable_of_a_set_must_be_there(environ):
    for name in set(environ) - {TORCHRUN, WATCHED, "NODE_RANK", "SLURM_JOB_NAME", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"}:
        _, after = refused({other: value for other, value in environ.items() if other != name})
        assert told(decide(after))[:3] == ("alone", 0, 1)


@pytest.mark.parametrize(
    "value", ["", "abc", "-1", "1.0", " 1", "+1", "0x1", "1_0", "٣", "1\n", "\x1b[31m", "\udcff", "9" * 5000]
)
@pytest.mark.parametrize("environ", [{}, OWN, TORCH, SRUN, HAND])
def test_numbers_are_numbers(environ, value):
    for name in (name for names in SETS for name in names if name not in (TORCHRUN, LIFELINE)):
        line, after = refused(environ | {name: value})
        assert line.startswith(f"{name}=") and len(line) < 400 and name not in after


def test_any_mixture_is_taken_or_refused_with_what_helps():
    draw = random.Random(0)
    names = [name for names in SETS for name in names]
    launchers = set()
    for _ in range(20_000):
        environ = {}
        for given in draw.sample([OWN, TORCH, SRUN, HAND, NODES, CONTAINER, ALONE_IN_JOB, {}], 2):
            environ |= {name: value for name, value in given.items() if draw.random() < 0.97}
        for name in draw.sample(names, draw.choice([0, 0, 1, 2])):
            environ[name] = draw.choice(["0", "1", "2", "4", "", "x"])
        for _ in range(8):  # each error names what came together; several launchers may have left something
            try:
                who = decide(environ)
                break
            except RecipeError:
                environ = refused(environ)[1]
        assert 0 <= who.rank < who.world and 0 <= who.local_rank <= who.rank
        assert who.world > 1 or who.launcher in ("alone", "nodes")
        launchers.add(who.launcher)
    assert launchers == {"alone", "own", "torchrun", "srun", "hand", "nodes"}


@contextmanager
def being(monkeypatch, environ):
    """In this process, for what asks :func:`here`."""
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SLURM") or any(name in names for names in SETS)]:
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        here.cache_clear()
        before = rank_zero_only.rank
        try:
            yield
        finally:
            rank_zero_only.rank = before
            here.cache_clear()


@pytest.mark.parametrize(
    ("environ", "kind"),
    [(TORCH, TorchElasticEnvironment), (SRUN | {"SLURM_NTASKS_PER_NODE": "2"}, SLURMEnvironment), (HAND, None), ({}, None)],
)
def test_lightning_agrees(monkeypatch, environ, kind):
    lsf = {
        "JSM_NAMESPACE_RANK": "0",
        "JSM_NAMESPACE_SIZE": "1",
        "JSM_NAMESPACE_LOCAL_RANK": "5",
        "LSB_JOBID": "5",
        "LSB_DJOB_RANKFILE": "x",
    }
    with being(monkeypatch, environ | lsf):
        who, lightning = here(), cluster_environment()
        assert rank_zero_only.rank == who.rank and (kind is None or isinstance(lightning, kind))
        assert (lightning.local_rank(), lightning.node_rank()) == (who.local_rank, who.node)
        assert lightning.creates_processes_externally and not (kind and lightning.global_rank() != who.rank)


def test_a_process_on_its_own_meets_nobody_and_hands_nothing_on(monkeypatch):
    left = PLACE | {"RANK": "0", "WORLD_SIZE": "1", "NODE_RANK": "0", "LOCAL_RANK": "0"}
    with being(monkeypatch, left):
        assert here() == Identity() and cluster_environment().main_address == "127.0.0.1"
        assert cluster_environment().main_port != 29500
        assert {"RANK", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"}.isdisjoint(os.environ) and "MASTER_ADDR" in os.environ
        assert (
            ranks.to_start(
                {"trainer": {"devices": 3, "num_nodes": 1, "accelerator": "cpu", "oversubscribe": True}, "explain": False}
            )
            == 3
        )
    with being(
        monkeypatch, left | {TORCHRUN: "x", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    ):
        assert here() == Identity() and not [name for name in os.environ if name.startswith(("TORCHELASTIC", "MASTER"))]


@pytest.mark.parametrize("value", ["abc", "", "0x", "12345", "-1", "1"])
def test_a_lifeline_is_a_pipe(monkeypatch, value):
    file = os.open(os.devnull, os.O_RDONLY)
    try:
        with (
            being(monkeypatch, {LIFELINE: str(file) if value == "1" else value}),
            pytest.raises(RecipeError, match=f"unset {LIFELINE}"),
        ):
            here()
    finally:
        os.close(file)


@pytest.mark.parametrize(
    ("environ", "trainer", "fix"),
    [
        (TORCH, {"devices": 1, "num_nodes": 1}, "type trainer=ddp trainer.devices=2 trainer.num_nodes=2"),
        (HAND, {"devices": "auto", "num_nodes": 1}, "type trainer=ddp trainer.devices=2 trainer.num_nodes=1"),
        (HAND, {"devices": 1, "num_nodes": 2}, "type trainer=ddp trainer.devices=2 trainer.num_nodes=1"),
        (
            NODES,
            {"devices": 2, "num_nodes": 1},
            "type trainer=ddp trainer.num_nodes=2 or more, or for one machine unset NODE_RANK",
        ),
        ({}, {"devices": 2, "num_nodes": 2}, "trainer.num_nodes=2: nothing has started processes on 2 machines"),
    ],
)
def test_processes_that_the_config_does_not_want_are_refused(monkeypatch, environ, trainer, fix):
    with being(monkeypatch, environ):
        with pytest.raises(RecipeError, match=re.escape(fix)):
            ranks.check_started({"accelerator": "cpu", **trainer})
        if found := re.search(r"devices=(\d+) trainer\.num_nodes=(\d+)$", fix):
            ranks.check_started({"accelerator": "cpu", "devices": int(found[1]), "num_nodes": int(found[2])})


# The commands


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RANK", "1"),
        ("LOCAL_RANK", "1"),
        ("SLURM_PROCID", "1"),
        ("RANK", ""),
        ("WORLD_SIZE", "abc"),
        ("JSM_NAMESPACE_RANK", "1"),
    ],
)
def test_a_variable_that_was_left_behind_stops_every_command_that_trains_or_tests(tmp_path, name, value):
    line = mistake(*SMALL, cwd=tmp_path, forked=True, **{name: value})
    assert line.endswith(f"type unset {name}")
    assert mistake("-m", "seed=0,1", *SMALL, cwd=tmp_path, forked=True, **{name: value}) == line
    assert mistake("nothing", script="evaluate.py", cwd=tmp_path, forked=True, **{name: value}) == line
    assert not list(tmp_path.iterdir())


def test_one_process_of_a_container_trains_with_ranks_of_its_own(tmp_path):
    words = [*SMALL, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=mine"]
    done = command("train.py", *words, cwd=tmp_path, forked=True, **CONTAINER)
    assert done.returncode == 0, done.stderr
    left = json.loads((tmp_path / "mine" / "result.json").read_text())
    assert left["status"] == "finished" and left["devices"] == 2


def together(words, environs, cwd):
    """Processes started side by side for one run; their exit codes and the result."""
    started = [
        subprocess.Popen(
            arguments("train.py", *words, "hydra.run.dir=mine"), cwd=cwd, env=variables(**environ), stderr=subprocess.PIPE
        )
        for environ in environs
    ]
    try:
        errors = [process.communicate(timeout=LIMIT)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors
    return json.loads((cwd / "mine" / "result.json").read_text())


def free_port():
    """One that the system does not give to anybody else soon: it hands them out in turn."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["nodes", "hand"])
def test_processes_that_a_person_starts(tmp_path, by):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    if by == "nodes":
        words, environs = ["trainer.devices=1", "trainer.num_nodes=2"], [{"NODE_RANK": str(number)} for number in (0, 1)]
    else:
        words = ["trainer.devices=2"]
        environs = [{"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"} for number in (0, 1)]
    result = together([*SMALL, "trainer=ddp", *words], [environ | place for environ in environs], tmp_path)
    assert result["status"] == "finished" and result["devices"] == 2


@pytest.mark.slow
def test_torchrun_whose_processes_the_config_does_not_want(tmp_path):
    words = [*SMALL, "hydra.run.dir=mine"]
    done = subprocess.run(
        torchrun("train.py", *words), cwd=tmp_path, env=variables(), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode and "type trainer=ddp trainer.devices=2 trainer.num_nodes=1" in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_nothing_else_reads_these_variables():
    names = {name for names in SETS for name in names} | set(FURTHER) | {name for pair in OTHERS.values() for name in pair}
    for path in (*ROOT.glob("recipes/**/*.py"), *ROOT.glob("hydra_plugins/*.py"), *ROOT.glob("plugins/**/*.py")):
        if path.name not in ("identity.py", "cluster.py"):
            read = re.findall(r"environ(?:\.get)?[\[(]\s*\"(\w+)\"", path.read_text())
            assert not names & set(read), path
