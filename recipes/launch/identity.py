"""Who this process is among those that train together: decided once, from a whole set of variables of the environment.

Each launcher sets several variables that fit together. A single one that was left behind would make a process the second of
several that are not there: it would train for nobody. So what is not whole, or does not fit, is refused. Nothing here imports
torch, and nothing else of this project reads these variables.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NoReturn

from plugins.errors import RecipeError

Launcher = Literal["alone", "own", "torchrun", "srun", "hand", "nodes"]
WATCHED = "LIGHTNING_RECIPES_WORLD"  # in a rank that `train.py` has started: how many there are
LIFELINE = "LIGHTNING_RECIPES_LIFELINE"  # names the pipe that tells a process that the one that started it is gone
TORCHRUN = "TORCHELASTIC_RUN_ID"
RANKS, SIZES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"), ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
PLACE = ("MASTER_ADDR", "MASTER_PORT")  # where the first rank waits for the others
HAND = ("RANK", "LOCAL_RANK", "WORLD_SIZE", *PLACE)
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", *PLACE)
STEP = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")  # of one of srun's processes, or of a job's script
COUNTS = ("SLURM_NTASKS", "SLURM_NNODES", "SLURM_STEP_NUM_TASKS")
SRUN = ("SLURM_JOB_ID", *STEP, "SLURM_NTASKS", "SLURM_NNODES")
FURTHER = ("SLURM_JOB_ID", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NUM_NODES", "SLURM_RESTART_COUNT")
OTHERS = {  # launchers that are not known here: their variables for rank and number of processes
    "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "mpiexec": ("PMI_RANK", "PMI_SIZE"),
    "mpirun_rsh": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    "jsrun": ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
}
TORCHS = (*RANKS, *SIZES, TORCHRUN, WATCHED, LIFELINE)
SLURMS = (*STEP, *COUNTS)
SETS = (TORCHS, (*SLURMS, *FURTHER), *OTHERS.values(), ("MASTER_PORT",))  # what came together


@dataclass(frozen=True)
class Job:
    """A Slurm job: the processes and nodes it is to have, this process' step and machine, and how often it was put back."""

    number: str
    tasks: int = 1
    nodes: int = 1
    name: str = ""
    step: str = ""
    host: str = ""
    restarts: int = 0


@dataclass(frozen=True)
class Identity:
    """Who this process is.

    Attributes:
        rank, world: its number among the processes that train together, and how many were started.
        local_rank, local_world: the same on its machine; 0 processes where that is not told.
        node: the number of its machine.
        launcher: what has started it: a person (alone), `train.py` (own), torchrun, srun, a person or script each process with
            all variables (hand) or each machine (nodes), where it starts its ranks itself.
        job: the Slurm job it belongs to, whatever has started it.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 0
    node: int = 0
    launcher: Launcher = "alone"
    job: Job | None = None

    @property
    def one_of_several(self) -> bool:
        """Whether others were started beside it for the same command."""
        return self.world > 1 or self.launcher == "nodes"


@cache
def here() -> Identity:
    """Who this process is.

    What says the same again is taken out of the environment, where libraries and the processes we start would read it.

    Raises:
        RecipeError: variables are missing, are no numbers, or do not fit together.
    """
    who = decide(os.environ)
    if LIFELINE in os.environ and not _is_pipe(os.environ[LIFELINE]):
        _refuse(os.environ, TORCHS, "train.py sets it for the processes that it starts", LIFELINE)
    if who.launcher in ("alone", "srun"):
        for name in repeated(os.environ):
            del os.environ[name]
    return who


def in_job() -> bool:
    """Whether this process belongs to a Slurm job; unlike :func:`here` refuses nothing."""
    return bool(os.environ.get("SLURM_JOB_ID"))


def repeated(environ: Mapping[str, str]) -> list[str]:
    """The variables that tell of ranks in torch's words."""
    names = [name for name in environ if name in (*RANKS, *SIZES) or name.startswith("TORCHELASTIC_")]
    return [*names, *(name for name in PLACE if name in environ and TORCHRUN in environ)]


def decide(environ: Mapping[str, str]) -> Identity:
    """Who a process with these variables is; raises :class:`RecipeError` as :func:`here` does."""
    for of in SETS:
        for name in (name for name in of if name in environ and name not in (TORCHRUN, LIFELINE)):
            value = environ[name]
            if not (value.isascii() and value.isdigit() and len(value) < 12) or (name == "MASTER_PORT" and int(value) > 65535):
                _refuse(environ, of, "it must be a whole number, 0 or more", name)
    job = _job(environ)
    if WATCHED in environ:
        return _own(environ, job)
    if TORCHRUN in environ:
        return _torchrun(environ, job)
    if job and job.step and _number(environ, "SLURM_STEP_NUM_TASKS", job.tasks) > 1:
        return _srun(environ, job)
    who = _by_hand(environ, job)
    _expect_no_other(environ, who)
    return who


def _job(environ: Mapping[str, str]) -> Job | None:
    if "SLURM_JOB_ID" not in environ:
        left = [name for name in STEP if name in environ] + [name for name in COUNTS if _number(environ, name, 1) > 1]
        if left:
            _refuse(environ, SLURMS, "Slurm sets it in its jobs only, together with SLURM_JOB_ID", left[0])
        return None
    nodes = _number(environ, "SLURM_NNODES", _number(environ, "SLURM_JOB_NUM_NODES", 1))
    number, name, step, host = (environ.get(f"SLURM{key}", "") for key in ("_JOB_ID", "_JOB_NAME", "_STEP_ID", "D_NODENAME"))
    restarts = _number(environ, "SLURM_RESTART_COUNT", 0)
    return Job(number, _number(environ, "SLURM_NTASKS", 1), nodes, name, step, host, restarts)


def _own(environ: Mapping[str, str], job: Job | None) -> Identity:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", LIFELINE)
    _expect_all(environ, names, TORCHS, "train.py", WATCHED)
    if environ[WATCHED] != environ["WORLD_SIZE"]:
        _refuse(environ, TORCHS, f"it does not fit WORLD_SIZE={environ['WORLD_SIZE']}", WATCHED)
    return _several(environ, job, "own", int(environ["NODE_RANK"]))


def _torchrun(environ: Mapping[str, str], job: Job | None) -> Identity:
    _expect_all(environ, OF_TORCHRUN, TORCHS, "torchrun", TORCHRUN)
    if int(environ["WORLD_SIZE"]) == 1:
        return _by_hand(environ, job)
    return _several(environ, job, "torchrun", int(environ["GROUP_RANK"]))


def _srun(environ: Mapping[str, str], job: Job) -> Identity:
    _expect_all(environ, SRUN, SLURMS, "srun", "SLURM_STEP_ID")
    rank, local, node = (int(environ[name]) for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"))
    for name, size in (("SLURM_PROCID", "SLURM_NTASKS"), ("SLURM_NODEID", "SLURM_NNODES")):
        if int(environ[name]) >= int(environ[size]):
            _refuse(environ, SLURMS, f"it must be below {size}={environ[size]}", name)
    if local > rank:
        _refuse(environ, SLURMS, f"it does not fit SLURM_PROCID={rank}", "SLURM_LOCALID")
    who = Identity(rank, job.tasks, local, 0, node, "srun", job)
    ours = {"RANK": rank, "LOCAL_RANK": local, "NODE_RANK": node, "GROUP_RANK": node, "WORLD_SIZE": who.world}
    other = [name for name, value in ours.items() if _number(environ, name, value) != value]
    if other and not ("WORLD_SIZE" in environ and _says_alone(environ)):  # as a container for one process does
        _refuse(environ, TORCHS, f"srun has started this process as SLURM_PROCID={rank} of {who.world}", other[0])
    return who


def _by_hand(environ: Mapping[str, str], job: Job | None) -> Identity:
    """Alone, or started by a person or a script that sets what torchrun does."""
    given = [name for name in TORCHS if name in environ]
    if job and _number(environ, "SLURM_PROCID", 0):
        _refuse(environ, SLURMS, "this is the only process that Slurm has started here, whose number is 0", "SLURM_PROCID")
    if _says_alone(environ) and ("WORLD_SIZE" in given or not {"RANK", "LOCAL_RANK", "NODE_RANK"} & set(given)):
        return Identity(job=job)
    if _number(environ, "WORLD_SIZE", 0) == 1:
        wrong = next(name for name in given if not _says_alone({name: environ[name]}))
        _refuse(environ, TORCHS, "it does not fit WORLD_SIZE=1", wrong)
    if "NODE_RANK" in given and not {"RANK", "LOCAL_RANK"} & set(given):
        _expect_all(environ, PLACE, TORCHS, "whoever starts train.py on each of several machines", "NODE_RANK")
        return Identity(node=int(environ["NODE_RANK"]), launcher="nodes", job=job)
    _expect_all(environ, HAND, TORCHS, "whoever starts several processes", given[0])
    rank, node = (
        int(environ["RANK"]),
        next((int(environ[name]) for name in ("NODE_RANK", "GROUP_RANK") if name in environ), None),
    )
    if node is None and "LOCAL_WORLD_SIZE" in environ:
        node = rank // max(1, int(environ["LOCAL_WORLD_SIZE"]))
    if node is None and rank != int(environ["LOCAL_RANK"]):
        _expect_all(environ, ("NODE_RANK",), TORCHS, "whoever starts processes on several machines", "RANK")
    return _several(environ, job, "hand", node or 0)


def _says_alone(environ: Mapping[str, str]) -> bool:
    """Whether what is there in torch's words is true of a process on its own."""
    return not any(_number(environ, name, 0) for name in RANKS) and all(_number(environ, name, 1) == 1 for name in SIZES)


def _several(environ: Mapping[str, str], job: Job | None, launcher: Launcher, node: int) -> Identity:
    """One of several, whose numbers must fit."""
    rank, local, world = (int(environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    for name, value in (("RANK", rank), ("LOCAL_RANK", local)):
        if value >= world:
            _refuse(environ, TORCHS, f"it must be below WORLD_SIZE={world}", name)
    if local > rank or node > rank:
        _refuse(environ, TORCHS, f"it does not fit {'LOCAL_RANK' if local > rank else 'the number of the machine'}", "RANK")
    return Identity(rank, world, local, _number(environ, "LOCAL_WORLD_SIZE", 0), node, launcher, job)


def _expect_no_other(environ: Mapping[str, str], who: Identity) -> None:
    """Refuse several processes of a launcher that is not known here, unless the variables that are known say the same."""
    for launcher, names in OTHERS.items():
        rank, world = _number(environ, names[0], 0), _number(environ, names[1], 1)
        if who.launcher != "nodes" and (rank, world) not in ((0, 1), (who.rank, who.world)):
            why = (
                f"{launcher} starts processes in a way that is not known here; start several with torchrun, srun or trainer=ddp"
            )
            _refuse(environ, names, why, names[0] if rank else names[1])


def _expect_all(environ: Mapping[str, str], names: Iterable[str], of: Iterable[str], who: str, first: str) -> None:
    """Refuse a set that is not whole."""
    if missing := [name for name in names if not environ.get(name)]:
        listed = f"{', '.join(missing[:-1])}{' and ' if missing[1:] else ''}{missing[-1]}"
        _refuse(environ, of, f"{who} sets it together with {listed}, which {'are' if missing[1:] else 'is'} not set", first)


def _refuse(environ: Mapping[str, str], of: Iterable[str], why: str, first: str) -> NoReturn:
    """Tell what is wrong with `first`, and what to take away: all variables that came with it."""
    value = ascii(environ[first])[1:-1]
    shown = value if len(value) <= 40 else f"{value[:40]}..."
    there = " ".join(name for name in of if name in environ)
    raise RecipeError(f"{first}={shown} in the environment: {why}; for one process type unset {there}")


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    return int(environ.get(name, default))


def _is_pipe(descriptor: str) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(int(descriptor)).st_mode)
    except (ValueError, OSError, OverflowError):
        return False
