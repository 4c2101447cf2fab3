"""Two DDP processes train what one process trains in two parts: for every option, also those that draw at random."""

import os
import subprocess
import sys

import pytest
import torch

from tests.harness import ROOT, config_of, fit, options, parameters, plugin_class, with_companions

SELECTIONS = {name: ",".join(with_companions(name)) for name in options()}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    target = tmp_path_factory.mktemp("ddp") / "found.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "tests/sweeps/ddp_worker.py", str(target), *dict.fromkeys(SELECTIONS.values())],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(target, weights_only=True)


@pytest.mark.parametrize("name", options())
def test_equals_one_process_with_two_parts(name, two_processes, tmp_path):
    found = two_processes[SELECTIONS[name]]
    assert "error" not in found, found["error"]
    if "refused" in found:
        assert len(found["refused"]) > 30
        return
    assert found["ranks_equal"]
    # batches of 16 on two ranks are pieces of 8, like two parts of 8 on one
    one = fit(config_of(SELECTIONS[name].split(","), "data.batch_size=8", "trainer.accumulate_grad_batches=2"), tmp_path, 4)
    assert one.parts == 2
    for key, value in parameters(one).items():
        torch.testing.assert_close(
            found["parameters"][key], value, rtol=2e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}"
        )


# what neither draws at random nor couples the samples of a batch gives the same in two halves as in one piece
COUPLED = ("augmentation", "adversarial", "normalization", "inference")
SEPARATE = [
    name
    for name in options()
    if name.split("/")[0] not in COUPLED and name not in ("regularizer/dropout", "regularizer/weight_noise")
]


@pytest.mark.parametrize("name", SEPARATE)
def test_accumulation_equals_the_whole_batch(name, tmp_path):
    names = with_companions(name)
    if any(other not in SEPARATE for other in names):
        pytest.skip("draws at random")
    halves = fit(config_of(names, "data.batch_size=8", "trainer.accumulate_grad_batches=2"), tmp_path / "halves", 4)
    whole = fit(config_of(names, "data.batch_size=16"), tmp_path / "whole", 4)
    for key, value in parameters(whole).items():
        torch.testing.assert_close(parameters(halves)[key], value, rtol=2e-4, atol=2e-5)
    assert plugin_class(name) is None or halves.metrics.keys() == whole.metrics.keys()
