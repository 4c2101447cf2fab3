"""Lightning and its libraries are told who this process is, instead of finding it out in ways of their own."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities import rank_zero_only

from recipes.launch.identity import Identity, here


class Known(LightningEnvironment):
    """A process that a person or `train.py` has started; on its own it meets nobody, whatever address was left behind."""

    def __init__(self, who: Identity) -> None:
        super().__init__()
        self.who, self.port = who, 0

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first process waits for the others."""
        return os.environ["MASTER_ADDR"] if self.who.world > 1 else "127.0.0.1"

    @property
    def main_port(self) -> int:
        """The port there."""
        self.port = self.port or (int(os.environ["MASTER_PORT"]) if self.who.world > 1 else find_free_network_port())
        return self.port

    def local_rank(self) -> int:
        """The number on this machine."""
        return self.who.local_rank

    def node_rank(self) -> int:
        """The number of the machine."""
        return self.who.node if self.who.world > 1 else 0

    def teardown(self) -> None:
        """Leave the environment as it is: another phase may follow."""


def cluster_environment() -> ClusterEnvironment:
    """What Lightning's trainer asks about the processes that train together; corrects its guess which of them is the first."""
    who = here()
    rank_zero_only.rank = who.rank  # type: ignore[attr-defined]
    if who.launcher == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if who.launcher == "srun" else Known(who)
