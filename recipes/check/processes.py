"""Two processes train what one process trains in two parts; so do two that keep parts of the weights, or the option is refused."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import connection
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
LIMIT = 300.0  # seconds for one option, and for two processes to begin
AFTER_A_FAILURE = 2.0  # seconds for the other process to say what it has seen of it
READY = "ready"  # a file that is there when both have met
Found = dict[str, Any]


def settings(names: Sequence[str], strategy: str) -> dict[str, Any]:
    """The config of two processes with some options and what they need; composed here, the processes need no catalogue."""
    return merged_config(names, {"trainer.strategy": strategy, **OFTEN})


def train_one(config: dict[str, Any], folder: Path) -> Found:
    """What a training gives, on each of two processes, or the line in which it is refused."""
    try:
        module = fit(config, folder, STEPS)
    except RecipeError as error:
        return {"refused": str(error)}
    # running statistics are among the weights
    mine = torch.cat([value.flatten() for value in weights(module).values() if value.is_floating_point()])
    other = mine.clone()
    dist.broadcast(other, src=0)
    equal = torch.tensor(float(torch.equal(mine, other)))
    dist.all_reduce(equal)
    return {"parameters": parameters(module), "ranks_equal": bool(equal == 2), "metrics": module.metrics}


def _one_of_two(rank: int, folder: Path, configs: Sequence[dict[str, Any]], trusted: Collection[str] = ()) -> None:
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
    if rank == 0:
        (folder / READY).touch()
    for number, config in enumerate(configs):
        try:
            found = train_one(config, folder / "runs" / str(number))
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            (folder / f"{number}.{rank}.error").write_text(traceback.format_exc()[-1500:], encoding="utf-8")
            os._exit(1)  # without waiting for the other, which may wait for this one
        if rank == 0:
            torch.save(found, folder / "part")
            (folder / "part").rename(folder / f"{number}.pt")
    dist.barrier()


def two_processes(names: Sequence[str], strategy: str, limit: float = LIMIT) -> dict[str, Found]:
    """What two new processes find with each of some options, by its name; one that is refused by itself is not there.

    One that fails, dies or has not ended in `limit` seconds has an "error"; the others are trained in two processes more.
    """
    configs = {}
    for name in names:
        with suppress(RecipeError):
            configs[name] = settings(with_companions(name), strategy)
    found: dict[str, Found] = {}
    while left := {name: config for name, config in configs.items() if name not in found}:
        found |= _found_by_pair(left, limit)
    return found


def _found_by_pair(configs: Mapping[str, dict[str, Any]], limit: float) -> dict[str, Found]:
    """What two processes find, up to the first option that ends them, which is among it."""
    with tempfile.TemporaryDirectory() as place:
        folder, context = Path(place), multiprocessing.get_context("spawn")
        arguments = folder, [*configs.values()], tuple(own.trusted)
        started = [context.Process(target=_one_of_two, args=(rank, *arguments), daemon=True) for rank in (0, 1)]
        for process in started:
            process.start()
        try:
            reason = _ended(started, folder, limit)
        finally:
            for process in started:
                if process.is_alive():
                    process.kill()
                process.join()
        saved = {name: folder / f"{number}.pt" for number, name in enumerate(configs)}
        found: dict[str, Found] = {name: torch.load(path, weights_only=True) for name, path in saved.items() if path.exists()}
        errors = sorted(folder.glob("*.error"), key=lambda path: path.stat().st_mtime_ns)  # the first is the other's cause
        if errors:
            found[[*configs][int(errors[0].name.partition(".")[0])]] = {"error": errors[0].read_text(encoding="utf-8")}
        elif under_way := next((name for name in configs if name not in found), None):
            found[under_way] = {"error": reason}
        return found


def _ended(started: Sequence[Any], folder: Path, limit: float) -> str:
    """Wait for the end of two processes, of one that fails, or of the time for one option; how they ended."""
    done, since = -1, time.monotonic()
    while any(process.is_alive() for process in started):
        connection.wait([process.sentinel for process in started if process.is_alive()], 0.5)
        if any(process.exitcode for process in started):
            for process in started:
                process.join(AFTER_A_FAILURE)
            break
        if (count := sum(1 for path in folder.iterdir() if path.suffix == ".pt" or path.name == READY)) > done:
            done, since = count, time.monotonic()
        if time.monotonic() - since > (limit if done > 0 else max(limit, LIMIT)):  # until they have met all is to be imported
            return f"has not ended after {limit:g} seconds: does one process wait for what the other does not do?"
    return f"ended with exit codes {[process.exitcode for process in started]}"


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
