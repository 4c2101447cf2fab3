"""The cluster itself: what the other tests here build on."""

from tests.cluster.slurm import Slurm, wait_for


def test_two_nodes_are_two_hosts_that_know_each_other(slurm):
    ask = "import os, socket; print(os.environ['SLURM_PROCID'], socket.gethostname(), socket.gethostbyname('node1'))"
    if slurm.two_hosts:
        lines = slurm.control("srun", "--nodes=2", "--ntasks-per-node=1", "python3", "-c", ask).splitlines()
        assert sorted(lines) == [f"0 node1 {slurm.subnet}.1", f"1 node2 {slurm.subnet}.1"]
    lines = slurm.control("srun", "--nodes=2", "--ntasks-per-node=1", "printenv", "SLURMD_NODENAME").splitlines()
    assert sorted(lines) == ["node1", "node2"]
    assert slurm.control("sinfo", "-h", "-o", "%G") == "gpu:2"


def test_two_clusters_leave_each_other_alone(slurm, tmp_path):
    """As when two people run the tests on one machine."""
    number = submit(slurm)
    other = Slurm(tmp_path / "other")
    try:
        other.folder.mkdir()
        other.start()
        assert other.control("squeue", "-h") == "" and other.two_hosts == slurm.two_hosts
        submit(other)
    finally:
        other.stop()
    assert slurm.state(number)["JobState"] == "RUNNING"


def submit(slurm):
    """The number of a job that runs."""
    number = slurm.control("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 1000")
    wait_for(lambda: slurm.state(number)["JobState"] == "RUNNING", 60, lambda: str(slurm.state(number)))
    return number
