"""Where numbers go: metrics.csv and histograms.csv always, Weights & Biases and TensorBoard by choice."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from plugins.base import RecipeError, expect, expect_choice, larger_is_better
from recipes.config.environment import check_wandb, has_cache, told
from recipes.config.errors import first_line
from recipes.config.untrusted import read_text
from recipes.engine.logger import RunLogger
from recipes.engine.metrics import Histogram
from recipes.launch.ranks import is_first_rank
from recipes.run.loggers.csv_files import histograms_until, numbers_until
from recipes.run.loggers.wandb_charts import charts_of_test
from recipes.store.files import write_text
from recipes.store.wandb_sync import HEADER, sync_command

log = logging.getLogger("recipes")


LOST = ("MailboxClosedError", "HandleAbandonedError")  # what wandb raises, beside ConnectionError, where its service is gone
MODES = ("online", "offline", "disabled", "shared")
LEGACY = {"dryrun": "offline", "run": "online"}  # names that WANDB_MODE had before
LONGEST = {"group": 128, "name": 128, "job_type": 64, "tag": 64}  # letters that the server takes
COSTS = (
    *("seconds", "samples_per_second", "parameters", "peak_memory", "steps", "epochs", "best_step"),
    *("devices", "nodes", "samples_per_step"),
)


def cut(text: str, longest: int) -> str:
    """A text of at most so many letters; one that was longer ends in a hash, so that different texts stay different."""
    return text if len(text) <= longest else f"{text[: longest - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def as_text(name: str, value: object) -> str | None:
    """A text, as a number that is typed is one too.

    Raises:
        RecipeError: it is a list, or another thing that is none.
    """
    plain = value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))
    expect(plain, f"logger.wandb.{name}", "text", value)
    return None if value is None else str(value)


class WandbRunLogger(WandbLogger, RunLogger):
    """Weights & Biases: online if a key is there and the server answers, offline otherwise; never waits for a person.

    The runs of a sweep share a group, and those of them that differ in nothing but the seed share a job type, so that curves
    grouped by both are averages over seeds. The summary has the numbers of the best model as `result/…`.

    Args:
        folder: the run's folder; files go to `wandb/` in it.
        facts: name, recipe, group, tags, notes and config of the run.
        project: the project on the server.
        entity: user or team.
        mode: online | offline | disabled; None: WANDB_MODE if it is set, else decided when the run starts.
        group: runs that belong together; None: the group of the run's sweep.
        init_timeout: seconds to wait for the server.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        project: str = "lightning-recipes",
        entity: str | None = None,
        mode: str | None = None,
        group: str | None = None,
        init_timeout: int = 20,
    ) -> None:
        self._folder, self._known, self._lost = folder, set[str](), False
        self._directions = dict(facts.get("directions", {}))
        experiment = None
        entity, mode, group = (as_text(name, value) for name, value in (("entity", entity), ("mode", mode), ("group", group)))
        if is_first_rank():
            experiment = self._start(facts, project, entity, mode, group or facts.get("group"), init_timeout)
        super().__init__(save_dir=str(folder), project=project, experiment=experiment)

    @classmethod
    def prepare(cls, mode: object = None, **settings: Any) -> None:
        """Start wandb's service in a thread: most of that is waiting for it."""
        if is_first_rank() and mode != "disabled":
            threading.Thread(target=cls._prepare, name="wandb").start()

    @staticmethod
    def _prepare() -> None:
        with suppress(Exception):  # the same goes wrong once more when the run begins, and is told
            import wandb

            if has_cache():
                wandb.setup(wandb.Settings(silent=True))

    def _start(
        self, facts: Mapping[str, Any], project: str, entity: str | None, mode: str | None, group: str | None, wait: int
    ) -> Any:
        with told():
            import wandb
        check_wandb(self._folder)
        identity = self._folder / "wandb" / "run-id.txt"
        if not identity.exists():
            write_text(identity, uuid.uuid4().hex[:8])
        if not re.fullmatch(r"[\w-]{1,64}", known := read_text(identity).strip()):
            raise RecipeError(f"{identity} is refused: expected the id of a wandb run, letters and digits")
        settings = wandb.Settings(silent=True, console="off", init_timeout=wait)
        config, recipe = dict(facts.get("config", {})), str(facts.get("recipe") or "defaults")
        seed = f" seed={config.get('seed', 0)}"
        start = {
            "project": project,
            "entity": entity,
            "id": known,
            "dir": str(self._folder),
            "name": cut(str(facts.get("name") or cut(recipe, LONGEST["name"] - len(seed)) + seed), LONGEST["name"]),
            "group": group and cut(group, LONGEST["group"]),
            "job_type": cut(recipe, LONGEST["job_type"]),
            "tags": [cut(tag, LONGEST["tag"]) for tag in facts.get("tags", []) if tag],
            "notes": facts.get("notes") or None,
            "config": config,
            "settings": settings,
        }
        source, mode = ("logger.wandb.mode", mode) if mode else ("WANDB_MODE", os.environ.get("WANDB_MODE"))
        mode = LEGACY.get(mode, mode) if mode else "online" if self._has_key() else "offline"
        expect_choice(source, mode, MODES)
        if mode == "online" and not self._has_key():
            if os.environ.get("WANDB_API_KEY"):
                log.warning("wandb: WANDB_API_KEY in the environment is no key, so the run is logged offline")
            else:
                log.warning("wandb: no key on this machine, so the run is logged offline; `wandb login` changes that")
            mode = "offline"
        try:
            # offline there is nothing to go on with: what is logged replaces what the server has once it is synced
            with told():
                run = wandb.init(mode=mode, resume=None if mode == "offline" else "allow", **start)  # type: ignore[arg-type]
        except (wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError, TimeoutError) as error:
            if mode != "online":
                raise RecipeError(f"logger.wandb: {first_line(error)}") from None
            log.warning("wandb: the server does not answer (%s), so the run is logged offline", type(error).__name__)
            wandb.teardown()  # the service still holds the run's id
            mode = "offline"
            run = wandb.init(mode=mode, **start)  # type: ignore[arg-type]
        if run.id != known:  # wandb's own sweeps choose it
            write_text(identity, run.id)
        run.define_metric("trainer/global_step")
        self.mode = mode
        return run

    @staticmethod
    def _has_key() -> bool:
        import wandb

        try:
            wandb.setup(wandb.Settings(silent=True))
            return bool(wandb.login(prompt=False, verify=False))
        except Exception:  # whatever is wrong with the key, the run goes on
            return False

    @contextmanager
    def _going_on_if_lost(self) -> Iterator[None]:
        """Train on where wandb's service is gone: Slurm's SIGTERM ends it with the run, which still has its state to save."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, ConnectionError) and type(error).__name__ not in LOST:
                raise
            if not self._lost:
                log.warning("wandb: the service on this machine has ended; what follows is in metrics.csv only")
            self._lost = True

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers over steps; the summary keeps the best and the last value of those that are monitored."""
        with self._going_on_if_lost():
            for name in metrics:
                if name not in self._known:
                    self._known.add(name)
                    monitored = name.startswith(("val/", "test/", "train/", "gap/"))
                    larger = larger_is_better(name, self._directions)
                    best = "last" if larger is None else "max,last" if larger else "min,last"
                    self.experiment.define_metric(name, step_metric="trainer/global_step", summary=best if monitored else None)
            self.experiment.log({**metrics, "trainer/global_step": step})

    @rank_zero_only
    def log_histograms(self, histograms: Mapping[str, Histogram], step: int) -> None:
        """Histograms of gradients, activations and the like."""
        read = {name: histogram.read() for name, histogram in histograms.items()}
        self._log_histograms({name: numbers for name, numbers in read.items() if numbers is not None}, step)

    def _log_histograms(self, histograms: Mapping[str, tuple[float, float, Sequence[int]]], step: int) -> None:
        import wandb

        charts = {
            name: wandb.Histogram(np_histogram=(np.array(counts), np.linspace(low, high, len(counts) + 1)))
            for name, (low, high, counts) in histograms.items()
        }
        if charts:
            with self._going_on_if_lost():
                self.experiment.log({**charts, "trainer/global_step": step})

    @rank_zero_only
    def log_test(self, tasks: Mapping[str, Any], step: int) -> None:
        """Results of each class, confusion matrices, reliability and residuals of the test, as tables and histograms."""
        with self._going_on_if_lost():
            if charts := charts_of_test(tasks):
                self.experiment.log({**charts, "trainer/global_step": step})

    def log_hyperparams(self, params: Any) -> None:
        """The config went along when the run was started."""

    @rank_zero_only
    def rewind(self, step: int, logged: Collection[str] | None = None) -> None:
        """Log again what was logged up to `step`, unless it is on the server.

        `wandb sync` stops at a part of a run that was killed, and does not join an offline part to it, so each offline part is
        made complete: the last one is all there is to sync.
        """
        if self.mode == "disabled" or self.experiment.step:
            return
        for at, numbers in numbers_until(self._folder, step, logged):
            self.log_metrics(numbers, at)
        for at, name, histogram in histograms_until(self._folder, step):
            self._log_histograms({name: histogram}, at)

    def facts(self) -> dict[str, Any]:
        """Where the run is on wandb, so that comparisons need not look into wandb's own files."""
        if not is_first_rank() or self.mode == "disabled":
            return {}
        run = self.experiment
        place = {name: getattr(run, name) or None for name in ("project", "entity", "group", "job_type", "id")}
        return {"wandb": {**place, "mode": self.mode, "url": None if run.offline else run.url}}

    @rank_zero_only
    def finish(self, result: Mapping[str, Any]) -> str | None:
        """End the wandb run, so that the next job does not write into it."""
        run = self.experiment
        with self._going_on_if_lost():
            run.summary.update({f"result/{name}": value for name, value in result.get("metrics", {}).items()})
            run.summary.update({name: result[name] for name in COSTS if name in result})
            run.finish(exit_code=0 if result.get("status") == "finished" else 1)
        if self.mode == "disabled" or self._lost:
            return None
        if not run.offline:
            return str(run.url)
        written = Path(run.dir).with_name(f"run-{run.id}.wandb")
        end = time.monotonic() + 5
        while written.stat().st_size <= HEADER and time.monotonic() < end:  # wandb may do so after it has returned
            time.sleep(0.02)
        return sync_command([self._folder])
