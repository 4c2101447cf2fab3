"""Whatever chooses, stops or sorts by a metric knows whether a larger value is better: it is declared, known by name, or asked."""

import json
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from plugins.errors import RecipeError
from plugins.loss.by_task import LossByTask
from plugins.stopping.early import EarlyStopping
from recipes.compare.present import present
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.module import RecipeModule
from recipes.run import train

VALUES = [0.2, 0.9, 0.5, 0.1, 0.3, 0.4]  # of the metric, validation by validation: the largest at 2, the smallest at 4


@pytest.fixture
def measuring(with_plugin, extra):
    """Lets every run measure a metric of that name, with the values above."""

    def add(name, **attributes):
        class Own(extra):
            count = 0

            def measure(self, module, batch, outputs, split):
                value = VALUES[min(self.count, len(VALUES) - 1)]
                return {name: torch.full((len(batch),), value)}

            def after_validation(self, module, metrics):
                self.count += 1
                return {}

        for key, value in attributes.items():
            setattr(Own, key, value)
        with_plugin(Own)

    return add


FEW = ("max_steps=12", "trainer.val_every_n_steps=2", "trainer.save_every_n_steps=2")


@pytest.mark.parametrize(
    ("name", "attributes", "words", "best"),
    [
        ("f1", {}, [], 4),
        ("macro_f1", {}, [], 4),
        ("mean_error", {}, [], 8),
        ("mine", {"directions": {"mine": "max"}}, [], 4),
        ("mine", {"directions": {"mine": "min"}}, [], 8),
        ("mine", {}, ["trainer.mode=max"], 4),
        ("mine", {}, ["trainer.mode=min"], 8),
        ("f1", {}, ["trainer.mode=min"], 8),  # the user knows better than a name
        ("f1", {"directions": {"f1": "min"}}, [], 8),  # so does the technique
    ],
)
def test_the_best_model_is_that_of_the_best_value(folder, measuring, name, attributes, words, best):
    measuring(name, **attributes)
    result = folder.train(f"trainer.monitor=val/{name}", *FEW, *words)
    assert result["best_step"] == best == load_checkpoint(folder.path / "checkpoints" / "best.ckpt")["global_step"]
    assert result["directions"][name] == ("max" if best == 4 else "min")
    assert json.loads((folder.path / "result.json").read_text())["directions"] == result["directions"]


@pytest.mark.parametrize(("words", "best"), [(["trainer.mode=max"], 4), (["stopping.mode=max"], 4), (["stopping.mode=min"], 8)])
def test_early_stopping_returns_to_the_best_value(folder, measuring, words, best):
    measuring("mine")
    early = ("+stopping=early", "stopping.monitor=val/mine", "stopping.every_n_steps=2", "stopping.patience=3", "max_steps=40")
    result = folder.train(*early, *words)
    assert result["best_step"] == best and result["stopped_early"] and result["steps"] == best + 6
    row = [row for row in folder.rows if "early/best_value" in row][-1]
    assert float(row["early/best_value"]) == pytest.approx(0.9 if best == 4 else 0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trainer.monitor=val/mine"],
            "whether a larger or a smaller val/mine is better is not known: type trainer.mode=max or trainer",
        ),
        (["+stopping=early", "stopping.monitor=val/mine"], "whether a larger or a smaller val/mine is better is not known"),
        (["trainer.mode=min"], "trainer.mode=min: val/acc is best at its max"),
        (["trainer.mode=max", "trainer.monitor=val/loss"], "trainer.mode=max: val/loss is best at its min"),
        (["trainer.mode=max", "+stopping=early"], "trainer.mode=max: val/loss is best at its min"),
        (["trainer.mode=min", "+stopping=early", "stopping.mode=max", "stopping.monitor=val/mine"], "contradict each other"),
    ],
)
def test_what_nobody_knows_is_asked_and_what_is_wrong_refused(folder, measuring, words, message):
    measuring("mine")
    with pytest.raises(RecipeError, match=message) as error:
        folder.train(*FEW, *words)
    assert "\n" not in str(error.value) and not any(folder.path.iterdir())


def test_a_declared_direction_is_not_turned_round(folder, measuring):
    measuring("mine", directions={"mine": "max"})
    with pytest.raises(RecipeError, match="trainer.mode=min: val/mine is best at its max"):
        folder.train(*FEW, "trainer.monitor=val/mine", "trainer.mode=min")


@pytest.mark.parametrize("change", [{"monitor": "val/loss"}, {"mode": "min"}])
def test_no_best_value_of_another_kind_stays_on_a_resume(folder, measuring, change):
    measuring("f1")
    folder.train("trainer.monitor=val/f1", *FEW)
    config = folder.result["config"]
    config = {**config, "max_steps": 16, "resume": str(folder.path), "trainer": {**config["trainer"], **change}}
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(RecipeError, match="cannot choose the best model any more|which the min cannot follow"):
        train.train(config, folder.path, [])
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_early_stopping_keeps_no_best_value_of_another_metric():
    state = EarlyStopping("val/f1").state_dict()
    EarlyStopping("val/f1").load_state_dict(state)
    for other in (EarlyStopping("val/loss"), EarlyStopping("val/f1", mode="min")):
        with pytest.raises(RecipeError, match="the best so far is that of stopping.monitor=val/f1"):
            other.load_state_dict(state)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_schedule_on_plateau_follows_the_loss(mode):
    x, y = torch.randn(16, 4), torch.arange(16) % 2
    schedule = lambda optimizer, steps: ReduceLROnPlateau(optimizer, mode=mode)  # noqa: E731
    module = RecipeModule(nn.Linear(4, 2), LossByTask(), partial(torch.optim.SGD, lr=0.1), schedule)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    fit = partial(L.Trainer(accelerator="cpu", max_steps=2, **quiet).fit, module, loader, loader)
    if mode == "min":
        return fit()
    with pytest.raises(RecipeError, match="make it with mode='min'"):
        fit()


# ------------------------------------------------------------------ searches and comparisons


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_comparison_sorts_as_the_runs_know_or_as_is_typed(folders, measuring, tmp_path, capsys, mode):
    measuring("mine")
    for rate in (0.1, 0.2):
        folders(f"runs/{rate}").train("trainer.monitor=val/mine", f"trainer.mode={mode}", f"optimizer.lr={rate}", "max_steps=1")
    word = "larger" if mode == "max" else "smaller"
    present([tmp_path / "runs"])
    assert f"test/mine, {word} is better" in capsys.readouterr().out
    for path in (tmp_path / "runs").glob("*/result.json"):  # as of a run that did not say
        result = json.loads(path.read_text())
        del result["directions"]
        result["metrics"] |= {"val/mine": float(path.parent.name), "test/mine": float(path.parent.name)}
        path.write_text(json.dumps(result))
    with pytest.raises(RecipeError, match="type --mode max or --mode min"):
        present([tmp_path / "runs"])
    capsys.readouterr()
    (comparison,) = present([tmp_path / "runs"], mode=mode)
    first = (tmp_path / "runs" / "compare.csv").read_text().splitlines()[1]
    assert ("0.2" if mode == "max" else "0.1") in first and comparison.larger is (mode == "max")
