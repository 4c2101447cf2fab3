"""Where numbers go: metrics.csv always, Weights & Biases and TensorBoard by choice."""

from __future__ import annotations

import csv
import io
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from plugins.base import RecipeError, expect_choice, larger_is_better
from recipes.checkpoint import unwritable, write_text
from recipes.results import is_first_rank

log = logging.getLogger("recipes")


class RunLogger(Logger):
    """A Lightning logger that belongs to one run folder and ends with it."""

    def finish(self, status: str) -> str | None:
        """End the logging; returns a line for the user, such as how to sync."""
        return None

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`, from which the run goes on."""


class Csv(RunLogger):
    """`metrics.csv` in the run's folder: one row for each logged step, one column a number."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, str]] = []
        self.columns: list[str] = ["step"]
        self._complete = False  # whether the file has all rows and columns, so that a row can be appended

    @property
    def name(self) -> str:
        """Lightning wants one."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning wants one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row; a new column means writing the file anew."""
        row = {"step": str(step or 0)} | {name: repr(float(value)) for name, value in metrics.items()}
        new = [name for name in row if name not in self.columns]
        self.columns += new
        same = bool(self.rows) and self.rows[-1]["step"] == row["step"]
        if same:
            self.rows[-1] |= row
        else:
            self.rows.append(row)
        if same or new or not self._complete:
            self._write()
            return
        try:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
        self._complete = True

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Keep the rows up to `step`, without the test at the end of a run that goes on."""
        if not self.path.exists():
            return
        text = self.path.read_text()
        # a process that was killed while it appended leaves half a row
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        self.columns = [name for name in reader.fieldnames or ["step"] if not name.startswith("test/")]
        rows = [{name: row[name] for name in self.columns if row[name]} for row in reader]
        self.rows = [row for row in rows if int(row["step"]) <= step]
        self._write()


class TensorBoard(TensorBoardLogger, RunLogger):
    """Event files in `tensorboard/` of the run's folder."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        try:
            super().__init__(folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError:
            raise RecipeError("logger=tensorboard needs the package tensorboard: pip install tensorboard") from None

    @rank_zero_only
    def log_histograms(self, histograms: Mapping[str, Tensor], step: int) -> None:
        """Histograms of gradients, activations and the like."""
        for name, values in histograms.items():
            self.experiment.add_histogram(name, values.float().cpu(), step)


MODES = ("online", "offline", "disabled", "shared")
LEGACY = {"dryrun": "offline", "run": "online"}  # names that WANDB_MODE had before


class Wandb(WandbLogger, RunLogger):
    """Weights & Biases: online if a key is there and the server answers, offline otherwise; never waits for a person.

    Args:
        folder: the run's folder; files go to `wandb/` in it.
        facts: name, group, tags, notes and config of the run.
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
        self._folder, self._known = folder, set[str]()
        experiment = None
        if is_first_rank():
            experiment = self._start(facts, project, entity, mode, group or facts.get("group"), init_timeout)
        super().__init__(save_dir=str(folder), project=project, experiment=experiment)

    def _start(
        self, facts: Mapping[str, Any], project: str, entity: str | None, mode: str | None, group: str | None, wait: int
    ) -> Any:
        import wandb

        identity = self._folder / "wandb" / "run-id.txt"
        if not identity.exists():
            write_text(identity, uuid.uuid4().hex[:8])
        settings = wandb.Settings(silent=True, console="off", init_timeout=wait)
        start = {
            "project": project,
            "entity": entity,
            "id": identity.read_text().strip(),
            "resume": "allow",
            "dir": str(self._folder),
            "name": facts.get("name"),
            "group": group,
            "tags": list(facts.get("tags", [])),
            "notes": facts.get("notes") or None,
            "config": dict(facts.get("config", {})),
            "settings": settings,
        }
        source, mode = ("logger.wandb.mode", mode) if mode else ("WANDB_MODE", os.environ.get("WANDB_MODE"))
        mode = LEGACY.get(mode, mode) if mode else "online" if self._has_key() else "offline"
        expect_choice(source, mode, MODES)
        if mode == "online" and not self._has_key():
            log.warning("wandb: no key on this machine, so the run is logged offline; `wandb login` changes that")
            mode = "offline"
        try:
            run = wandb.init(mode=mode, **start)  # type: ignore[arg-type]
        except (wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError, TimeoutError) as error:
            if mode != "online":
                raise RecipeError(f"logger.wandb: {str(error).splitlines()[0]}") from None
            log.warning("wandb: the server does not answer (%s), so the run is logged offline", type(error).__name__)
            wandb.teardown()  # the service still holds the run's id
            mode = "offline"
            run = wandb.init(mode=mode, **start)  # type: ignore[arg-type]
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

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers over steps; the summary keeps the best and the last value of those that are monitored."""
        for name in metrics:
            if name not in self._known:
                self._known.add(name)
                monitored = name.startswith(("val/", "test/", "train/", "gap/"))
                best = "max" if larger_is_better(name) else "min"
                self.experiment.define_metric(
                    name, step_metric="trainer/global_step", summary=f"{best},last" if monitored else None
                )
        self.experiment.log({**metrics, "trainer/global_step": step})

    @rank_zero_only
    def log_histograms(self, histograms: Mapping[str, Tensor], step: int) -> None:
        """Histograms of gradients, activations and the like."""
        import wandb

        if histograms:
            charts = {
                name: wandb.Histogram(np_histogram=np.histogram(values.float().cpu().numpy(), 64))
                for name, values in histograms.items()
            }
            self.experiment.log({**charts, "trainer/global_step": step})

    def log_hyperparams(self, params: Any) -> None:
        """The config went along when the run was started."""

    @rank_zero_only
    def finish(self, status: str) -> str | None:
        """End the wandb run, so that the next job does not write into it."""
        run = self.experiment
        hint = None
        if self.mode != "disabled":
            hint = f"wandb sync {os.path.relpath(Path(run.dir).parent)}" if run.offline else str(run.url)
        run.finish(exit_code=0 if status == "finished" else 1)
        return hint
