"""Two processes train what one process trains in two parts; so do two that keep parts of the weights, or the option is refused."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from plugins.base import RecipeError, right_on_shards
from plugins.norm_statistics import measured_norms
from recipes.check.alone import close
from recipes.check.harness import build, data_of, fit, merged_config, with_companions
from recipes.check.outcome import expect
from recipes.check.trained import parameters, weights
from recipes.config import own

STEPS = 4
OFTEN = {"trainer.val_every_n_steps": 2}  # so that what is done at a validation is compared too
BORDER = 1.5  # samples that may lie on the border between two classes
Found = dict[str, Any]


def settings(names: Sequence[str], strategy: str) -> dict[str, Any]:
    """The config of two processes with some options and what they need; composed here, the processes need no catalogue."""
    return merged_config(names, {"trainer.strategy": strategy, **OFTEN})


def train_all(target: Path, configs: Mapping[str, dict[str, Any]]) -> None:
    """What each of two processes does: one training for each config; the first process saves what came out."""
    found: dict[str, Found] = {}
    for number, (name, config) in enumerate(configs.items()):
        try:
            module = fit(config, target.with_name("runs") / str(number), STEPS)
            # running statistics are among the weights
            mine = torch.cat([value.flatten() for value in weights(module).values() if value.is_floating_point()])
            other = mine.clone()
            dist.broadcast(other, src=0)
            equal = torch.tensor(float(torch.equal(mine, other)))
            dist.all_reduce(equal)
            found[name] = {"parameters": parameters(module), "ranks_equal": bool(equal == 2), "metrics": module.metrics}
        except RecipeError as error:
            found[name] = {"refused": str(error)}
        except Exception:
            traceback.print_exc()
            found[name] = {"error": traceback.format_exc()[-1500:]}
    if dist.get_rank() == 0:
        torch.save(found, target)


def _one_of_two(rank: int, folder: str, configs: Mapping[str, dict[str, Any]], trusted: Collection[str] = ()) -> None:
    own.trusted.update(trusted)
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    train_all(Path(folder) / "found.pt", configs)
    dist.barrier()


def two_processes(names: Sequence[str], strategy: str, limit: float = 1800.0) -> dict[str, Found]:
    """What two new processes find with each of some options, by its name; one that is refused by itself is not there.

    Raises:
        RuntimeError: one of them has died, or has not ended in time; in a check's line.
    """
    configs = {}
    for name in names:
        with suppress(RecipeError):
            configs[name] = settings(with_companions(name), strategy)
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        started = [
            context.Process(target=_one_of_two, args=(rank, folder, configs, tuple(own.trusted)), daemon=True)
            for rank in (0, 1)
        ]
        for process in started:
            process.start()
        try:
            for process in started:
                process.join(limit)
                if process.exitcode:
                    break
            codes = [process.exitcode for process in started]
        finally:
            for process in started:
                if process.is_alive():
                    process.kill()
                process.join()
        if not (Path(folder) / "found.pt").exists():
            raise RuntimeError(f"two processes with {', '.join(names)} ended with exit codes {codes}")
        found: dict[str, Found] = torch.load(Path(folder) / "found.pt", weights_only=True)
        return found


@cache
def _found(names: tuple[str, ...], strategy: str) -> dict[str, Found]:
    return two_processes(names, strategy)


def ddp(name: str, folder: Path, together: Sequence[str] = ()) -> None:
    """Two processes with copies of the weights; `together` are options that are trained in the same two processes."""
    equals_two_parts(with_companions(name), folder, _found(tuple(together) or (name,), "ddp")[name])


def fsdp(name: str, folder: Path, together: Sequence[str] = ()) -> None:
    """Two processes that keep parts of the weights."""
    names = tuple(together) or (name,)
    equals_copies(with_companions(name), _found(names, "fsdp")[name], _found(names, "ddp")[name])


def equals_two_parts(names: Sequence[str], folder: Path, found: Found) -> None:
    """Whether what two processes found is what one finds in two parts, or they refused it in a line that says why."""
    expect("error" not in found, f"fails in two processes: {found.get('error')}")
    if "refused" in found:
        expect(len(found["refused"]) > 30, f"is refused in two processes without a reason: {found['refused']}")
        return
    expect(found["ranks_equal"], "two processes end with different weights: draw with module.generator(…, same_on_ranks=True)?")
    # batches of 16 on two ranks are pieces of 8, like two parts of 8 on one
    two_parts = {**OFTEN, "data.batch_size": 8, "trainer.accumulate_grad_batches": 2}
    config = merged_config(names, two_parts)
    one = fit(config, folder, STEPS)
    expect(one.parts == 2, f"{one.parts} parts instead of 2")
    _expect_close(
        found["parameters"], parameters(one), "in two processes it trains other weights than one process in two parts"
    )
    # the same samples, starts and masks; running statistics have seen every part on one process, every second one on each of two
    share = 1e-2 if measured_norms(one.model) else 1e-3
    _expect_near(found["metrics"], one.metrics, share, BORDER / len(data_of(config).splits["val"]), "in two processes")


def equals_copies(names: Sequence[str], found: Found, expected: Found) -> None:
    """Whether processes that keep parts of the weights find what those that keep copies do, or are refused by the option's own word."""
    expect("error" not in found, f"fails where each process keeps parts of the weights: {found.get('error')}")
    if "refused" in found:
        told = found["refused"].endswith("trainer=ddp")
        expect(told, f"its refusal of trainer=fsdp does not end with what to type, trainer=ddp: {found['refused']}")
        selection = build(merged_config(names)).selection
        assert selection is not None
        right = all(map(right_on_shards, [*selection.plugins, *selection.others]))
        expect(not right, f"is refused with trainer=fsdp though on_shards says that it is right: {found['refused']}")
        return
    if "parameters" not in expected:
        return
    what = "with trainer=fsdp it trains other weights than with trainer=ddp"
    _expect_close(found["parameters"], expected["parameters"], what)
    expect("val/loss" in found["metrics"], "with trainer=fsdp there is no val/loss")
    _expect_near(found["metrics"], expected["metrics"], 1e-4, 1e-5, "with trainer=fsdp")


def _expect_close(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], what: str) -> None:
    expect(found.keys() == expected.keys(), f"{what}: {', '.join(sorted(found.keys() ^ expected.keys()))}")
    differs = [key for key, value in expected.items() if not close(found[key], value)]
    expect(not differs, f"{what}: {', '.join(differs)}")


def _expect_near(found: Mapping[str, float], expected: Mapping[str, float], share: float, least: float, where: str) -> None:
    expect(
        found.keys() == expected.keys(), f"{where} it has other metrics: {', '.join(sorted(found.keys() ^ expected.keys()))}"
    )
    far = [
        f"{key} {found[key]:g} instead of {value:g}"
        for key, value in expected.items()
        if not (found[key] == value or abs(found[key] - value) <= max(least, share * abs(value)))
    ]
    expect(not far, f"{where} it measures something else: {', '.join(far)}")
