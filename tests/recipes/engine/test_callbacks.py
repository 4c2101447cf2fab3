"""Every public callback of the installed Lightning: right beside our techniques, or refused in one line before the first batch."""

import copy
import inspect
import json
import re
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import lightning.pytorch.callbacks as of_lightning
import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.averaging.ema import EMA
from plugins.base import Plugin, Stage
from plugins.errors import RecipeError
from plugins.normalization.batch import BatchNormalization
from plugins.regularizer.dropout import Dropout
from plugins.wrapper.sam import SAM
from recipes.config.callback_names import BASES, IN_PYTHON_ONLY, REFUSED, as_option
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.config.effect import has_effect
from recipes.engine.module import RecipeModule
from recipes.run.build import build_callbacks
from tests.plugins.conftest import Memory

ROOT = Path(__file__).parents[3]
OPTIONS = {path.stem: yaml.safe_load(path.read_text())[path.stem] for path in sorted((ROOT / "conf/callback").glob("*.yaml"))}
ON_THE_COMMAND_LINE = {node["_target_"].rpartition(".")[2] for node in OPTIONS.values()}
PUBLIC = sorted(of_lightning.__all__)
WORKING = sorted(set(PUBLIC) - set(REFUSED))
SGD = partial(torch.optim.SGD, lr=0.1)


def net(seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


class Data:
    """Four batches, the same in each epoch."""

    def __init__(self):
        self.x, self.y = torch.randn(32, 1, 4, 4), torch.randint(3, (32,))

    def loader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=8)


def arguments_of(name, folder):
    """What the constructor must be given, for something to happen."""
    return {
        "EarlyStopping": {"monitor": "val/loss"},
        "ModelCheckpoint": {"dirpath": folder, "monitor": "val/loss"},
        "OnExceptionCheckpoint": {"dirpath": folder},
        "StochasticWeightAveraging": {"swa_lrs": 0.05, "swa_epoch_start": 2},
        "ThroughputMonitor": {"batch_size_fn": lambda batch: len(batch[0]), "window_size": 2},
        "ModelPruning": {"pruning_fn": "l1_unstructured", "amount": 0.3},
        "GradientAccumulationScheduler": {"scheduling": {0: 1, 2: 2}},
        "DeviceStatsMonitor": {"cpu_stats": False},  # those of the CPU need another package
    }.get(name, {})


def fit(
    model, data, *callbacks, epochs=4, optimizer=SGD, scheduler=None, loss=nn.functional.cross_entropy, resume=None, **further
):
    module = model if isinstance(model, L.LightningModule) else RecipeModule(model, loss, optimizer, scheduler, seed=3)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    for callback in callbacks:
        quiet["enable_progress_bar"] |= isinstance(callback, of_lightning.ProgressBar)
        quiet["enable_checkpointing"] |= isinstance(callback, of_lightning.Checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = {**quiet, "accelerator": "cpu", "max_epochs": epochs, "log_every_n_steps": 2, **further}
        trainer = L.Trainer(callbacks=list(callbacks), **arguments)
        trainer.fit(module, data.loader(), data.loader(), ckpt_path=resume)
    return module, trainer


def weights(module):
    return {name: value.detach().clone() for name, value in module.model.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------ all of them


def test_each_public_callback_has_one_place():
    placed = [*BASES, *ON_THE_COMMAND_LINE, *IN_PYTHON_ONLY, *REFUSED]
    assert sorted(placed) == PUBLIC


def test_the_page_tells_the_same():
    page = (ROOT / "docs" / "callbacks.md").read_text()
    rows = {name: row for row in page.splitlines() for name in re.findall(r"^\| `(\w+)`", row)}
    assert rows.keys() == set(PUBLIC) - set(BASES)
    for name in rows:
        cells = [cell.strip() for cell in rows[name].strip("|").split("|")]
        expected = f"`+callback={as_option(name)}`" if name in ON_THE_COMMAND_LINE else "no"
        assert cells[1].startswith(expected), name
        assert cells[2].startswith("no" if name in REFUSED else "yes"), name


@pytest.mark.parametrize("name", sorted(set(WORKING) - {"StochasticWeightAveraging", "WeightAveraging", "EMAWeightAveraging"}))
def test_those_that_change_no_weight_change_none(name, tmp_path, capsys):
    """With and without techniques that draw, change the model and step twice; fitted, validated and tested."""
    data = Data()
    for techniques in ((), (Dropout(0.3), SAM(0.05), BatchNormalization())):
        make = getattr(of_lightning, name)(**arguments_of(name, tmp_path))
        logger = Memory()
        module, trainer = fit(net(), data, make, *copy.deepcopy(techniques), logger=logger)
        plain, _ = fit(net(), data, *copy.deepcopy(techniques))
        assert trainer.global_step == 16
        if name != "ModelPruning":
            assert same(weights(module), weights(plain))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.validate(module, data.loader(), verbose=False)
            trainer.test(module, data.loader(), verbose=False)
        assert 0 <= module.metrics["test/acc"] <= 1


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_those_that_cannot_be_right_are_refused_by_name(name, tmp_path):
    class Own(getattr(of_lightning, name)):
        """Nor is a subclass of it right."""

    for kind in (getattr(of_lightning, name), Own):
        steps = []
        watch = of_lightning.LambdaCallback(on_train_batch_start=lambda *_, steps=steps: steps.append(1))
        with pytest.raises(RecipeError) as refused:
            fit(net(), Data(), watch, kind(**arguments_of(name, tmp_path)))
        assert kind.__name__ in str(refused.value) and "\n" not in str(refused.value) and not steps


@pytest.mark.parametrize("name", sorted({*REFUSED, *IN_PYTHON_ONLY}))
def test_what_is_no_option_is_told_with_what_to_type_instead(name):
    catalogue = Catalogue()
    for written in (name, as_option(name)):
        with pytest.raises(RecipeError, match=f"Lightning's {name} is not for a run: "):
            catalogue.option("callback", written)


# ------------------------------------------------------------------ what they do


def test_callbacks_see_the_model_that_is_trained(tmp_path):
    """Lightning sets them up before the module, whatever their order: the techniques have changed the model by then."""
    seen = []

    class Look(L.Callback):
        def setup(self, trainer, pl_module, stage):
            seen.append((stage, [type(layer).__name__ for layer in pl_module.model.modules()]))

    for order in ((Look(), Dropout(0.5), BatchNormalization()), (BatchNormalization(), Look(), Dropout(0.5))):
        seen.clear()
        _, trainer = fit(net(), Data(), *order, epochs=1)
        (stage, kinds), *further = seen
        assert stage == "fit" and not further and {"DropoutLayer", "BatchNorm1d"} <= set(kinds)
        assert [type(callback) for callback in trainer.callbacks] == [BatchNormalization, Dropout, Look]


def test_each_callback_is_set_up_once():
    counts = {}

    class Counts(L.Callback):
        def __init__(self, name):
            self.name = name

        @property
        def state_key(self):
            return self.name

        def setup(self, trainer, pl_module, stage):
            counts[self.name] = counts.get(self.name, 0) + 1

    class Technique(Plugin):
        stage, group, option = Stage.DIAGNOSTICS, "test", "counts"

        def setup(self, trainer, pl_module, stage):
            counts["technique"] = counts.get("technique", 0) + 1

    fit(net(), Data(), Counts("a"), Technique(), Counts("b"), Dropout(0.5), Counts("c"), epochs=1)
    assert counts == {"a": 1, "b": 1, "c": 1, "technique": 1}


class Automatic(L.LightningModule):
    """The same training as Lightning's own loop makes it."""

    def __init__(self, model, optimizer=SGD, scheduler=None):
        super().__init__()
        self.model, self.make, self.schedule = model, optimizer, scheduler
        self.rates = []

    def training_step(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.cross_entropy(self.model(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        return optimizer if self.schedule is None else ([optimizer], [self.schedule(optimizer)])


class Rates(L.Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("with_schedule", [False, True])
def test_stochastic_weight_averaging_anneals_and_averages_as_in_lightnings_own_loop(strategy, with_schedule):
    def average():
        return of_lightning.StochasticWeightAveraging(0.02, swa_epoch_start=3, annealing_epochs=2, annealing_strategy=strategy)

    def schedule(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.7)

    class Own(RecipeModule):
        """Somebody's schedule, of epochs."""

        def configure_optimizers(self):
            made = super().configure_optimizers()
            return {"optimizer": made, "lr_scheduler": schedule(made)} if with_schedule else made

    data, rates = Data(), Rates()
    expected, _ = fit(Automatic(net(), SGD, schedule if with_schedule else None), data, average(), epochs=7)
    module = Own(net(), nn.functional.cross_entropy, SGD)
    fit(module, data, average(), rates, epochs=7)
    assert rates.rates == pytest.approx(expected.rates)
    assert len(set(rates.rates)) >= 3 and rates.rates[-1] == pytest.approx(0.02)
    for found, wanted in zip(module.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_stochastic_weight_averaging_with_batch_norm_is_refused():
    average = of_lightning.StochasticWeightAveraging(0.02, swa_epoch_start=1)
    with pytest.raises(RecipeError, match="StochasticWeightAveraging cannot be used with batch norm"):
        fit(net(), Data(), average, BatchNormalization())


@pytest.mark.parametrize("name", ["WeightAveraging", "EMAWeightAveraging"])
def test_averages_of_lightning_are_those_of_the_transformed_model(name, tmp_path):
    class Recompute(L.Callback):
        """The average over the trained weights, written out."""

        def __init__(self):
            self.average, self.count = None, 0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            now = [parameter.detach().clone() for parameter in pl_module.parameters()]
            if self.average is None:
                self.average = now
            else:
                share = 0.1 if name == "EMAWeightAveraging" else 1 / (self.count + 1)
                self.average = [old + share * (new - old) for old, new in zip(self.average, now, strict=True)]
            self.count += 1

    data, recompute = Data(), Recompute()
    further = {"decay": 0.9} if name == "EMAWeightAveraging" else {}
    module, _ = fit(net(), data, getattr(of_lightning, name)(**further), Dropout(0.2), BatchNormalization(), recompute)
    assert recompute.count == 16
    for found, expected in zip(module.parameters(), recompute.average, strict=True):
        torch.testing.assert_close(found.detach(), expected)
    with pytest.raises(RecipeError, match=f"{name} and averaging/ema both average the weights"):
        fit(net(), data, getattr(of_lightning, name)(**further), EMA())


def test_pruning_takes_the_weights_of_the_transformed_model():
    prune = of_lightning.ModelPruning("l1_unstructured", amount=0.5, use_lottery_ticket_hypothesis=False)
    module, _ = fit(net(), Data(), prune, Dropout(0.2), epochs=1)
    layers = [layer for layer in module.model.modules() if isinstance(layer, nn.Linear)]
    zeros = sum(int((value == 0).sum()) for layer in layers for value in (layer.weight, layer.bias))
    assert zeros == round(0.5 * sum(value.numel() for layer in layers for value in (layer.weight, layer.bias)))


def test_early_stopping_of_lightning_stops_and_goes_on(tmp_path):
    data = Data()
    stop = of_lightning.EarlyStopping("val/loss", patience=2, min_delta=10.0)
    _, trainer = fit(net(), data, stop, epochs=9)
    assert trainer.current_epoch == 3 and stop.stopped_epoch == 2  # the first is the best, two do not improve
    stop = of_lightning.EarlyStopping("val/acc", mode="max", stopping_threshold=0.0)
    assert fit(net(), data, stop, epochs=9)[1].current_epoch == 1


def test_learning_rates_are_logged_under_the_optimizers_name():
    log = Memory()

    def schedule(optimizer, steps):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)

    monitor = of_lightning.LearningRateMonitor()
    fit(net(), Data(), monitor, SAM(), scheduler=schedule, epochs=2, logger=log, log_every_n_steps=1)
    found = {row["at"]: row["lr-SGD"] for row in log.rows if "lr-SGD" in row}
    assert found == pytest.approx({step: 0.1 * 0.9**step for step in range(8)})
    assert not [name for row in log.rows for name in row if name.startswith("lr-") and name != "lr-SGD"]


def test_checkpoints_of_lightning_hold_what_was_validated(tmp_path):
    data = Data()
    keep = of_lightning.ModelCheckpoint(tmp_path, monitor="val/loss", save_on_train_epoch_end=False, save_weights_only=True)
    module, _ = fit(net(), data, keep, EMA(0.9), epochs=3)
    assert keep.best_model_score == pytest.approx(module.metrics["val/loss"])
    saved = torch.load(keep.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], value) for name, value in module.state_dict().items())
    with pytest.raises(RecipeError, match="ModelCheckpoint would keep other weights than those of averaging/ema"):
        fit(net(), data, of_lightning.ModelCheckpoint(tmp_path, monitor="val/loss"), EMA(0.9))


@pytest.mark.parametrize("techniques", [(), (EMA(0.9), SAM(), Dropout(0.2))], ids=["plain", "several"])
def test_a_training_goes_on_from_a_checkpoint_of_lightning(techniques, tmp_path):
    data = Data()
    keep = of_lightning.ModelCheckpoint(tmp_path, save_last=True)
    fit(net(), data, keep, *copy.deepcopy(techniques), epochs=3)
    whole, _ = fit(net(), data, *copy.deepcopy(techniques), epochs=5)
    resumed, _ = fit(net(), data, *copy.deepcopy(techniques), epochs=5, resume=tmp_path / "last.ckpt")
    assert same(weights(whole), weights(resumed))


def test_a_timer_ends_the_training():
    timer = of_lightning.Timer({"seconds": 0})
    _, trainer = fit(net(), Data(), timer)
    assert trainer.global_step == 0 or trainer.should_stop


def test_every_hook_of_a_callback_is_called_as_often_as_there_are_steps():
    """Lightning leaves one of them out in manual optimization."""
    counts = dict.fromkeys(("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"), 0)

    def count(name):
        def hook(*_):
            counts[name] += 1

        return hook

    fit(net(), Data(), of_lightning.LambdaCallback(**{name: count(name) for name in counts}), epochs=2)
    assert counts == dict.fromkeys(counts, 8)


def test_before_zero_grad_sees_the_gradients_of_the_step_before():
    seen = []

    class Look(L.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            seen.append((type(optimizer).__name__, [parameter.grad is not None for parameter in pl_module.parameters()]))

    class Own(RecipeModule):
        calls = 0

        def on_before_zero_grad(self, optimizer):
            self.calls += 1

    module = Own(net(), nn.functional.cross_entropy, SGD)
    fit(module, Data(), Look(), SAM(), epochs=1)
    assert [name for name, _ in seen] == ["SharpnessAware"] * 4 and module.calls == 4
    assert not any(seen[0][1]) and all(all(there) for _, there in seen[1:])


# ------------------------------------------------------------------ on the command line


def config_of(*words):
    return finish(Catalogue(), compose(words), words)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options_name_what_the_class_takes(name):
    node = OPTIONS[name]
    kind = getattr(of_lightning, node["_target_"].rpartition(".")[2])
    assert name == as_option(kind.__name__) and not node.keys() - {"_target_"} - set(inspect.signature(kind).parameters)
    text = (ROOT / "conf" / "callback" / f"{name}.yaml").read_text().splitlines()
    assert text[0].startswith("# ") and len(text[0]) <= 160
    assert all(" # " in line for line in text[3:])
    (callback,) = build_callbacks(config_of(f"+callback={name}"))
    assert type(callback) is kind


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+callback=timer", "callback.timer.duration=10min"], r"callback.timer: .*not a valid duration"),
        (["+callback=timer", "callback.timer.duration={minuets: 3}"], r"callback.timer: .*minuets"),
        (["+callback=timer", "callback.timer.interval=year"], r"callback.timer: .*year"),
        (["+callback=early_stopping", "callback.early_stopping.mode=up"], r"callback.early_stopping: .*up"),
        (["+callback=learning_rate_monitor", "callback.learning_rate_monitor.logging_interval=x"], "logging_interval"),
        (
            ["+callback=timer", "callback.timer.duration=600"],
            "callback.timer.duration must be text, a mapping or null, got 600$",
        ),
        *(
            (
                ["+callback=early_stopping", f"callback.early_stopping.{name}={typed}"],
                f"{name} must be a number or null, got {got}$",
            )
            for name in ("stopping_threshold", "divergence_threshold")
            for typed, got in (("95%", "'95%'"), ("true", "True"), ("[1]", r"\[1\]"))
        ),
    ],
)
def test_bad_values_are_told_with_their_place(words, message):
    with pytest.raises(RecipeError, match=message) as told:
        build_callbacks(config_of(*words))
    assert "\n" not in str(told.value)


def test_the_direction_of_a_metric_is_known():
    for monitor, mode in (("val/acc", "max"), ("val/loss", "min")):
        (stop,) = build_callbacks(config_of("+callback=early_stopping", f"callback.early_stopping.monitor={monitor}"))
        assert stop.mode == mode
    (stop,) = build_callbacks(config_of("+callback=early_stopping", "callback.early_stopping.mode=max"))
    assert stop.mode == "max"


def test_a_run_with_callbacks_lists_and_uses_them(folder, folders):
    words = ("+callback=[learning_rate_monitor,early_stopping,timer]", "callback.early_stopping.min_delta=9.0")
    words += ("callback.early_stopping.patience=2", "scheduler=linear", "max_epochs=8", "scheduler.steps=400")
    result = folder.train(*words)
    assert {"learning_rate_monitor", "early_stopping", "timer"} <= set(result["techniques"])
    assert json.loads((folder.path / "result.json").read_text())["config"]["callback"].keys() == {
        "learning_rate_monitor",
        "early_stopping",
        "timer",
    }
    assert result["status"] == "finished" and result["epochs"] == 3 and result["stopped_early"]
    rates = {int(row["step"]): float(row["lr-SGD"]) for row in folder.rows if "lr-SGD" in row}
    assert len(rates) > 2 and rates[0] == pytest.approx(0.1) and len(set(rates.values())) == len(rates)


def test_a_run_with_callbacks_goes_on_bit_for_bit(folder, folders):
    words = ("+callback=[learning_rate_monitor,early_stopping]", "callback.early_stopping.min_delta=9.0")
    words += ("callback.early_stopping.patience=3",)
    whole = folders("whole")
    whole.train(*words, "max_epochs=6")
    folder.train(*words, "max_epochs=2")
    folder.resume("max_epochs=6")
    assert folder.result["metrics"] == whole.result["metrics"] and folder.result["epochs"] == whole.result["epochs"] == 4
    assert [row["step"] for row in folder.rows] == [row["step"] for row in whole.rows]


def test_an_unknown_metric_of_a_callback_is_told_before_the_first_batch(folder):
    with pytest.raises(RecipeError, match=r"callback.early_stopping.monitor=val/f1 is no metric of this run"):
        folder.train("+callback=early_stopping", "callback.early_stopping.monitor=val/f1")
    assert not (folder.path / "metrics.csv").exists()


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "/"},
        {"_target_": "lightning.pytorch.callbacks.LambdaCallback"},
        {"_target_": "os.system"},
        {"_target_": "lightning.pytorch.callbacks.Timer", "duration": None, "interval": "step", "dirpath": "/"},
        {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "${oc.env:HOME}", "interval": "step"},
    ],
)
def test_a_strangers_folder_names_known_callbacks_only(folder, node):
    """What may be said in a config that comes with a folder are the options, with their parameters."""
    folder.train("+callback=timer", "max_steps=2")
    path = folder.path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["callback"]["timer"] = node
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(RecipeError):
        folder.resume("max_steps=4")


def test_a_package_that_is_missing_is_one_line_before_the_first_batch(folder, monkeypatch):
    from lightning.pytorch.callbacks import device_stats_monitor

    monkeypatch.setattr(device_stats_monitor, "_PSUTIL_AVAILABLE", False)
    with pytest.raises(RecipeError, match="psutil") as told:
        folder.train("+callback=device_stats_monitor")
    assert "\n" not in str(told.value) and not (folder.path / "metrics.csv").exists()


def test_what_only_looks_makes_no_other_run():
    for name in OPTIONS:
        looks = name in ("learning_rate_monitor", "device_stats_monitor", "rich_model_summary")
        assert has_effect(f"callback.{name}.some") is not looks


def test_callbacks_are_shown_before_a_run(folder, capsys):
    folder.train("+callback=timer", "callback.timer.interval=epoch", "explain=true")
    assert "timer interval=epoch: Timer" in capsys.readouterr().out


def test_a_callback_of_a_package_is_an_option_like_any(tmp_path, monkeypatch):
    """Its class is one of an installed package; a technique belongs into a group of its own."""
    node = {"_target_": "lightning.pytorch.callbacks.TQDMProgressBar", "refresh_rate": 7}
    (bar,) = build_callbacks({"callback": {"mine": node}})
    assert bar.refresh_rate == 7
    for target, message in (
        ("plugins.regularizer.dropout.Dropout", "callback.mine: Dropout is a technique"),
        ("torch.nn.Linear", "callback.mine: .*expected a class of kind Callback"),
        ("subprocess.Popen", "callback.mine: .*a config may name classes of"),
        ("lightning.pytorch.callbacks.BatchSizeFinder", "BatchSizeFinder cannot be used here"),
    ):
        with pytest.raises(RecipeError, match=message):
            build_callbacks({"callback": {"mine": {"_target_": target}}})
