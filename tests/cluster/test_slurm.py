"""The cluster itself: what the other tests here build on."""


def test_two_nodes_are_two_hosts_that_know_each_other(slurm):
    ask = "import os, socket; print(os.environ['SLURM_PROCID'], socket.gethostname(), socket.gethostbyname('node1'))"
    lines = sorted(slurm.control("srun", "--nodes=2", "--ntasks-per-node=1", "python3", "-c", ask).splitlines())
    if slurm.two_hosts:
        assert lines == [f"0 node1 {slurm.subnet}.1", f"1 node2 {slurm.subnet}.1"]
    else:
        assert len(lines) == 2
    assert slurm.control("sinfo", "-h", "-o", "%G") == "gpu:2"
