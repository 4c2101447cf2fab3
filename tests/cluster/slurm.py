"""A Slurm of two nodes on one machine, for the time of the tests.

Each node's daemon lives in network, host name and mount namespaces of its own, so that two ranks of a job are on two hosts: they
reach each other by address over a bridge, and each resolves the other's name. Where the kernel allows no network namespaces, both
nodes share the machine's loopback device.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "ip", "nsenter", "unshare")
PACKAGES = "slurmctld slurmd slurm-client munge iproute2"
NODES = ("node1", "node2")
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where daemons are, which no user's PATH has

# KillWait and OverTimeLimit: no job is ended because the machine is slow; MinJobAge: none is forgotten.
# FirstJobId: Lightning makes a port of a job's number.
CONF = """\
ClusterName=tests
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_min_interval=0,bf_interval=2
JobRequeue=1
ReturnToService=2
KillWait=120
OverTimeLimit=10
MinJobAge=86400
FirstJobId={first}
SlurmctldTimeout=30
SlurmdTimeout=30
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr={address} Port={port} CPUs=8 RealMemory=10000 Gres=gpu:2 State=UNKNOWN\n"


def unavailable() -> str:
    """Why there can be no Slurm here; empty where there can."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]:
        return f"no {', '.join(missing)}: apt-get install {PACKAGES}"
    if os.geteuid() != 0:
        return "Slurm's daemons are started by root only"
    if "PYTEST_XDIST_WORKER" in os.environ:
        return "each of pytest's processes would start a Slurm: python -m pytest -m cluster -n 0"
    return ""


class Slurm:
    """The daemons of a cluster, their files in `folder`; to be started once and stopped once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, secrets.token_hex(2)  # of the interfaces, which take 15 letters
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCH}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons; returns when both nodes take jobs."""
        self.two_hosts = self._connect()
        self._configure()
        # munged trusts no socket or key in a folder that others can write to, as /tmp is
        self._daemon("munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key", *self._munge_files())
        wait_for((self.folder / "munge.sock").exists, 20, self._logs)
        self._daemon("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        for number, node in enumerate(NODES, 1):
            words = ["slurmd", "-D", "-f", self.environment["SLURM_CONF"], "-N", node]
            if self.two_hosts:  # `ip netns exec` would mount another /sys, with which slurmd ends
                enter = f'hostname {node}; mount --bind "{self.folder}/hosts" /etc/hosts; exec "$@"'
                net = f"--net=/run/netns/{self._space(number)}"
                words = ["nsenter", net, "unshare", "--uts", "--mount", "bash", "-c", enter, "slurmd", *words]
            self._daemon(*words)
        wait_for(lambda: self._run("sinfo", "-h", "-o", "%D %t") == "2 idle", 60, self._logs)

    def clear(self) -> None:
        """End all jobs, whatever they make of it."""
        if self._run("squeue", "-h"):
            self._run("scancel", "--signal=KILL", "--full", "--user=root")
            self._run("scancel", "--user=root")
            wait_for(lambda: not self._run("squeue", "-h"), 60, lambda: self._run("squeue"))

    def stop(self) -> None:
        """End the jobs and the daemons, and remove the network."""
        with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired, AssertionError):  # the daemons are to end
            self.clear()
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for number in (1, 2):
            _quietly("ip", "netns", "del", self._space(number))
        _quietly("ip", "link", "del", f"lr{self.name}")

    def state(self, job: str) -> Mapping[str, str]:
        """What `scontrol show job` tells."""
        words = self._run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def control(self, *words: str) -> str:
        """What one of Slurm's commands prints."""
        return self._run(*words)

    def _connect(self) -> bool:
        """A bridge with an end in the namespace of each node; whether that could be made."""
        self.subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        bridge = f"lr{self.name}"
        try:
            self._run("ip", "link", "add", bridge, "type", "bridge")
            self._run("ip", "addr", "add", f"{self.subnet}.254/24", "dev", bridge)
            self._run("ip", "link", "set", bridge, "up")
            for number in (1, 2):
                space, cable = self._space(number), f"lr{self.name}v{number}"
                self._run("ip", "netns", "add", space)
                self._run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
                self._run("ip", "link", "set", cable, "master", bridge, "up")
                self._run("ip", "-n", space, "addr", "add", f"{self.subnet}.{number}/24", "dev", "eth0")
                self._run("ip", "-n", space, "link", "set", "lo", "up")
                self._run("ip", "-n", space, "link", "set", "eth0", "up")
        except subprocess.CalledProcessError:
            return False
        return True

    def _configure(self) -> None:
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        for name in ("state", "spool-node1", "spool-node2"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        main = f"{self.subnet}.254" if self.two_hosts else "127.0.0.1"
        text = CONF.format(host=host, address=main, port=free_port(), folder=folder, first=1 + secrets.randbelow(9000))
        port = free_port()
        for number, node in enumerate(NODES, 1):
            here = {"host": node, "address": f"{self.subnet}.{number}", "port": port}
            text += NODE.format(name=node, **(here if self.two_hosts else {"host": host, "address": main, "port": free_port()}))
        (folder / "slurm.conf").write_text(text)
        # files in the place of GPUs, for what is scheduled by them
        gpus = "".join(f"NodeName={node} Name=gpu File={folder}/gpu[0-1]\n" for node in NODES)
        for number in (0, 1):
            self._run("mknod", str(folder / f"gpu{number}"), "c", "1", "3")
        (folder / "gres.conf").write_text(gpus)
        names = "".join(f"{self.subnet}.{number} {node}\n" for number, node in enumerate(NODES, 1))
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{main} {host}\n{names}")
        if not self.two_hosts:  # the nodes' names resolve nowhere
            self.environment["MASTER_ADDR"] = "127.0.0.1"

    def _munge_files(self) -> list[str]:
        kinds = {"socket": "munge.sock", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        return [f"--{kind}={self.folder}/{name}" for kind, name in kinds.items()]

    def _daemon(self, *words: str) -> None:
        with open(self.folder / "daemons.log", "ab") as log:
            # a session of its own: Ctrl-C in the terminal of the tests ends the jobs first
            environment = {**os.environ, **self.environment}
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        self._daemons.append(process)

    def _run(self, *words: str) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    def _space(self, number: int) -> str:
        return f"lr{self.name}n{number}"

    def _logs(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path.name}: {line}" for path in logs for line in path.read_text().splitlines()[-8:])


def wait_for(condition: Callable[[], object], seconds: float, explain: Callable[[], str] = str) -> None:
    """Wait until something is true; what explains why it is not becomes the error."""
    end = time.monotonic() + seconds
    while True:
        with suppress(subprocess.CalledProcessError, OSError):  # not there yet
            if condition():
                return
        assert time.monotonic() < end, explain()
        time.sleep(0.2)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


def _quietly(*words: str) -> None:
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
