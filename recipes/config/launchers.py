"""The settings of Hydra's launchers for the jobs of a sweep, as `hydra.launcher.…` sets them. Nothing here imports torch.

The launchers stand in `hydra_plugins/lightning_recipes.py`. `hydra/launcher=processes` is the default of `train.py -m`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from recipes.config.sweepers import offer_sweepers


@dataclass
class ProcessesConf:
    """What `hydra.launcher.…` sets."""

    _target_: str = "hydra_plugins.lightning_recipes.ProcessesLauncher"
    n_jobs: int = 1  # jobs at a time; -1: as many as the GPUs take, or a process a CPU core where there is no GPU
    jobs_per_gpu: int = 1  # jobs that share a GPU, for models that leave it idle
    start: str = "warm"  # of a job: warm, a fork of a process that has imported all | fresh, a process that imports it again


@dataclass
class SlurmConf:
    """What `hydra.launcher.…` sets with `hydra/launcher=slurm`; null leaves it to the cluster, where nothing else is said."""

    _target_: str = "hydra_plugins.lightning_recipes.SlurmLauncher"
    timeout_min: int = 60  # minutes that a job may take before it is saved and goes back into the queue
    partition: str | None = None  # queue of the cluster; `sinfo` lists them
    account: str | None = None  # who pays
    qos: str | None = None  # quality of service
    nodes: int | None = None  # machines a job; null: trainer.num_nodes
    tasks_per_node: int | None = None  # processes on each; null: trainer.devices
    gpus_per_node: int | None = None  # null: trainer.devices where jobs train on GPUs
    cpus_per_task: int | None = None  # CPU cores a process
    mem_gb: int | None = None  # memory on each node
    constraint: str | None = None  # features that nodes must have
    exclude: str | None = None  # nodes not to use
    name: str = "train"  # in the queue
    n_jobs: int = -1  # jobs in the queue at a time; -1: all
    signal_delay_s: int = 120  # seconds before the time limit at which a job is asked to save and to come back
    max_num_timeout: int = 100  # times that it does so
    setup: list[str] | None = None  # shell lines before the job, such as "module load cuda"
    additional_parameters: Any = None  # any others of sbatch, by name; a typed dict would take no new names
    submitit_folder: str = "${hydra.sweep.dir}/.submitit/%j"


@dataclass
class RayInitConf:
    """The cluster."""

    address: str | None = None  # auto: the one of this machine; null: RAY_ADDRESS, else one that begins and ends with the sweep
    num_cpus: int | None = None  # CPU cores of a cluster of the sweep's own; null: those of this machine
    num_gpus: int | None = None  # its GPUs; null: those of this machine


@dataclass
class RayRemoteConf:
    """What each job gets."""

    num_cpus: float | None = None  # CPU cores; null: trainer.devices
    num_gpus: float | None = None  # GPUs; null: trainer.devices where jobs train on GPUs; 0.5: two jobs share one
    memory: int | None = None  # bytes of main memory
    accelerator_type: str | None = None  # the kind of GPU, such as A100
    resources: Any = None  # any others that the cluster's machines have


@dataclass
class RaySettings:
    """The arguments of Ray's own functions of these names."""

    init: RayInitConf = field(default_factory=RayInitConf)
    remote: RayRemoteConf = field(default_factory=RayRemoteConf)


@dataclass
class RayConf:
    """What `hydra.launcher.…` sets with `hydra/launcher=ray`; the names are those of hydra-ray-launcher."""

    _target_: str = "hydra_plugins.lightning_recipes.RayLauncher"
    ray: RaySettings = field(default_factory=RaySettings)
    n_jobs: int = -1  # jobs at a time; -1: as many as the cluster has room for


@cache  # Hydra keeps them
def offer_launchers() -> None:
    """Let Hydra find our launchers, in this process only: other applications of the environment keep theirs.

    Hydra's plugins store their settings when they are imported, and the last one stored has a name that several have.
    """
    Plugins.instance()  # imports all of them
    offer_sweepers()
    for name, node in (("processes", ProcessesConf), ("slurm", SlurmConf), ("ray", RayConf)):
        ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="lightning_recipes")
