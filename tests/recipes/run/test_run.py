import json
import math
import shlex
import signal
import subprocess
import time
import warnings

import numpy as np
import pytest
import torch
import yaml

from plugins.base import Phase
from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, change, read_run
from recipes.config.composing import compose, finish
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.stop import StopOnSignal, Stopped
from recipes.run.build import build_data, build_loss, build_model, build_module, build_plugins, load_run
from recipes.run.evaluate import evaluate
from recipes.run.train import train
from recipes.store.shapes import FORMAT
from tests.command import LIMIT, arguments, as_at_home, variables

STATEFUL = (
    "+averaging=ema",
    "+regularizer=[dropout,label_smoothing]",
    "+augmentation=[mixup,crop]",
    "+wrapper=sam",
    "+stopping=early",
    "stopping.patience=2",
    "+guard=nan_rollback",
    "guard.nan_rollback.every_n_steps=7",
    "optimizer=momentum",
    "scheduler=one_cycle",
)


def measure(folder, *words):
    """What `python evaluate.py FOLDER WORDS` measures."""
    catalogue = Catalogue()
    config = change(catalogue, read_run(catalogue, folder.path), list(words), ON_EVALUATION, "evaluation")
    return evaluate(folder.path, config, words)["metrics"]


def stopper(extra, step, number=signal.SIGTERM, times=1):
    """A technique that asks its own process to stop during a step."""

    class Stopper(extra):
        def transform_batch(self, batch, module):
            if module.phase["steps"] + module.steps_done == step:
                for _ in range(times):
                    signal.raise_signal(number)
            return batch

    return Stopper


def test_what_a_run_leaves(folder, folders, capsys):
    result = folder.train("max_epochs=2", "logger=[csv,wandb]", "logger.wandb.mode=offline", "+regularizer=dropout")
    assert {"format": FORMAT, **result} == folder.result
    there = {path.name for path in folder.path.iterdir()}
    assert there == {
        "config.yaml",
        "result.json",
        "confusion.json",
        "test.json",
        "metrics.csv",
        "checkpoints",
        "wandb",
        "train.log",
    }
    assert {path.name for path in (folder.path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}

    shown = capsys.readouterr().out
    assert all(
        text in shown for text in ("val", "test", f"{result['metrics']['test/acc']:.4f}", str(folder.path), "wandb sync")
    )

    metrics = {f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc")} | {"gap/acc"}
    assert result["status"] == "finished" and set(result["metrics"]) == metrics
    assert all(isinstance(value, float) for value in result["metrics"].values())
    assert result["steps"] == 80 and result["epochs"] == 2 and 0 < result["best_step"] <= 80 and result["seed"] == 0
    assert result["parameters"] == sum(p.numel() for p in build_model(result["config"], (1, 8, 8), 10, 0).parameters())
    assert all(result[name] > 0 for name in ("seconds", "samples_per_second", "peak_memory"))
    assert {"python", "torch", "lightning"} <= result["versions"].keys() and "git_commit" in result
    assert result["techniques"] == ["dropout", "standardize", "sgd"]

    text = (folder.path / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert config == result["config"] and config["resume"] is None
    words = shlex.split(text.splitlines()[1])
    assert words[:3] == ["#", "python", "train.py"] and finish(Catalogue(), compose(words[3:]), words[3:]) == config
    again = folders("again")
    again.path.mkdir()
    assert train({**config, "logger": {}}, again.path, [])["metrics"] == result["metrics"]

    steps = [int(row["step"]) for row in folder.rows]
    assert steps == [40, 50, 80] and {name for row in folder.rows for name in row} >= metrics | {"step/loss", "lr", "epoch"}
    assert float(folder.rows[-1]["test/acc"]) == result["metrics"]["test/acc"]
    log = (folder.path / "train.log").read_text()
    assert all(text in log for text in ("started: python train.py", "step 80: val/loss", "finished after 80 steps"))

    last = load_checkpoint(folder.path / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 80 and last["recipe"]["shape"] == [1, 8, 8]


def test_status_while_it_runs_and_when_it_fails(folder, with_plugin, extra):
    seen = []

    class Breaks(extra):
        def after_step(self, module, optimizer):
            seen.append(folder.result["status"])
            if module.steps_done == 3:
                raise OverflowError("too much\nof it")

    with_plugin(Breaks)
    with pytest.raises(OverflowError):
        folder.train()
    assert seen == ["running"] * 3
    assert folder.result["status"] == "failed" and folder.result["error"] == "too much" and folder.result["steps"] == 3
    assert "Traceback" in (folder.path / "train.log").read_text()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+inference=mc_dropout", r"train with \+regularizer=dropout"),
        ("trainer.precision=8-mixed", "^trainer: .*8-mixed"),
        ("trainer.strategy=nothing", "^trainer: .*nothing"),
        ("trainer.accumulate_grad_batches=2000", "1293 training samples cannot be cut into 1 devices × 2000 parts"),
        (
            "trainer.devices=3",
            "a step of 32 samples cannot be cut into 3 devices × 1 parts: type data.batch_size=30 or data.batch_size=33",
        ),
    ],
)
def test_what_is_refused_leaves_nothing(folder, word, message):
    with pytest.raises(RecipeError, match=message) as error:
        folder.train(word)
    assert "\n" not in str(error.value)
    assert not any(folder.path.iterdir())


def test_explain_leaves_nothing(folder):
    assert folder.train("explain=true", *STATEFUL)["status"] == "explained"
    assert not any(folder.path.iterdir())


# ------------------------------------------------------------------ stopped and resumed


def test_stopped_and_resumed_is_as_if_nothing_had_happened(folder, folders, with_plugin, extra, capsys):
    words = (*STATEFUL, "max_epochs=4", "trainer.val_every_n_steps=9", "trainer.log_every_n_steps=5")
    whole = folders("whole")
    whole.train(*words)
    at = int(np.random.default_rng().integers(1, 110))
    with_plugin(stopper(extra, at))
    stopped = folder.train(*words, "logger=wandb", "logger.wandb.mode=offline")
    assert stopped["status"] == "stopped" and stopped["stopped_by"] == "SIGTERM" and stopped["steps"] == at + 1
    shown = capsys.readouterr().out
    assert f"the state of step {at + 1} is saved" in shown and f"python train.py resume={folder.path}" in shown
    with_plugin()
    resumed = folder.resume()
    assert resumed["status"] == "finished" and "stopped_by" not in resumed
    for name in ("metrics", "best_step", "steps", "epochs", "phases", "monitor", "parameters", "seed"):
        assert resumed[name] == whole.result[name], name
    assert folder.rows == whole.rows
    assert resumed["seconds"] > stopped["seconds"]
    offline = [path.name for path in (folder.path / "wandb").glob("offline-run-*")]
    identity = (folder.path / "wandb" / "run-id.txt").read_text()
    assert offline and all(identity in name for name in offline)
    assert resumed["command"] == stopped["command"]


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_start"])
def test_a_signal_before_the_first_step_is_heard(folder, folders, with_plugin, extra, hook):
    whole = folders("whole")
    whole.train("max_steps=5")
    with_plugin(type("Sends", (extra,), {hook: lambda *arguments: signal.raise_signal(signal.SIGTERM)}))
    stopped = folder.train("max_steps=5")
    assert stopped["status"] == "stopped" and stopped["steps"] == 0
    with_plugin()
    assert folder.resume()["metrics"] == whole.result["metrics"] and folder.rows == whole.rows


@pytest.mark.parametrize("hook", ["measure", "on_test_start"])
def test_a_signal_while_the_test_runs(folder, folders, with_plugin, extra, hook):
    """All is trained, so the test is finished."""
    words = ("max_steps=5", "data.test=0.7")  # several batches
    whole = folders("whole")
    whole.train(*words)

    def send(self, *arguments):
        if hook == "on_test_start" or arguments[-1] == "test":
            signal.raise_signal(signal.SIGTERM)
        return {}

    with_plugin(type("Sends", (extra,), {hook: send}))
    assert folder.train(*words)["status"] == "finished"
    with_plugin()
    assert folder.resume()["metrics"] == whole.result["metrics"] and folder.rows == whole.rows


def test_what_waits_to_be_logged_survives(folder, with_plugin, extra):
    class Records(extra):
        option = "records"

        def after_step(self, module, optimizer):
            if module.steps_done == 3:
                self.record(module, "seen", torch.tensor(7.0))

    with_plugin(Records, stopper(extra, 3))
    assert folder.train("trainer.log_every_n_steps=5", "max_steps=6")["steps"] == 4
    with_plugin(Records)
    folder.resume()
    assert [row["step"] for row in folder.rows if row.get("records/seen") == "7.0"] == ["5"]


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal: tests that a shell runs in the background are started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_stopped_in_the_midst_of_a_validation(folder, folders, with_plugin, extra):
    """The validation is finished, the state saved before the next step; nothing is measured twice."""
    words = (*STATEFUL, "max_steps=20", "trainer.val_every_n_steps=6")
    whole = folders("whole")
    whole.train(*words)

    class StopsValidation(extra):
        def measure(self, module, batch, outputs, split):
            if module.steps_done == 12:
                signal.raise_signal(signal.SIGTERM)
            return {}

    with_plugin(StopsValidation)
    stopped = folder.train(*words)
    assert stopped["status"] == "stopped" and stopped["steps"] == 12
    with_plugin()
    assert folder.resume()["metrics"] == whole.result["metrics"] and folder.rows == whole.rows


def test_a_second_ctrl_c_ends_at_once(folder, with_plugin, extra, ctrl_c):
    after = []

    class Watch(stopper(extra, 50, signal.SIGINT, times=2)):
        def after_step(self, module, optimizer):
            after.append(module.steps_done)

    with_plugin(Watch)
    result = folder.train("trainer.save_every_n_steps=20")
    assert result["status"] == "stopped" and result["stopped_by"] == "SIGINT"
    assert after[-1] == 50
    assert load_checkpoint(folder.path / "checkpoints" / "last.ckpt")["global_step"] == 40
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_are_ignored_stay_ignored(ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for a job in the background
    with StopOnSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        signal.raise_signal(signal.SIGTERM)  # some systems send it again and again
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_second_signal_stops_at_once(ctrl_c):
    with StopOnSignal():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_real_processes_end_cleanly_and_go_on(folders):
    """Ctrl-C for one, SIGTERM for another, in the midst of training."""
    words = ("model=linear", "max_steps=1000000", "logger=[]", "trainer.accelerator=cpu")
    processes = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = folders(number.name)
        folder.path.mkdir()
        processes[number] = (
            folder,
            subprocess.Popen(
                [*arguments("train.py", *words), f"hydra.run.dir={folder.path}"],
                env=variables(),
                cwd=folder.path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
    for number, (folder, process) in processes.items():
        deadline = time.monotonic() + 90
        while not (folder.path / "checkpoints" / "best.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
    for number, (folder, process) in processes.items():
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 128 + number, (out, err)  # 130 and 143
        assert "Traceback" not in err
        result = folder.result
        assert result["status"] == "stopped" and result["stopped_by"] == number.name and result["steps"] > 0
        assert f"go on    python train.py resume={folder.path}" in as_at_home(out)
        assert load_checkpoint(folder.path / "checkpoints" / "last.ckpt")["global_step"] == result["steps"]
        on = folder.resume(f"max_steps={result['steps'] + 3}")
        assert on["status"] == "finished" and on["steps"] == result["steps"] + 3


def test_a_finished_run_is_finished(folder, folders, capsys):
    words = ("+averaging=ema", "+regularizer=dropout", "optimizer=momentum")
    short, long = folder, folders("long")
    short.train(*words, "max_epochs=2")
    long.train(*words, "max_epochs=3")
    before, text = short.result, (short.path / "train.log").read_text()
    capsys.readouterr()
    for further in ((), ("max_epochs=2",), ("max_epochs=1",), ("max_steps=80",)):
        assert {"format": FORMAT, **short.resume(*further)} == before == short.result
        shown = capsys.readouterr().out
        assert "the run is finished" in shown and "max_epochs=" in shown and f"{before['metrics']['test/acc']:.4f}" in shown
    assert (short.path / "train.log").read_text() == text
    longer = short.resume("max_epochs=3")
    assert longer["status"] == "finished" and longer["metrics"] == long.result["metrics"]
    assert short.rows == long.rows
    assert longer["command"].count("max_epochs=3") == 1 and "max_epochs=2" not in longer["command"]
    assert yaml.safe_load((short.path / "config.yaml").read_text())["max_epochs"] == 3


@pytest.mark.parametrize("ends", ["max_epochs=2", "max_steps=70", "stopping.patience=1"])
def test_killed_between_the_last_step_and_the_result(folder, ends):
    """All is trained, but nothing is written yet: what the end of training does has to be done again."""
    words = [word for word in STATEFUL if not word.startswith("stopping.patience")]
    folder.train(*words, ends, "trainer.val_every_n_steps=6", "stopping.min_delta=0.02", "optimizer.lr=3.0")
    whole, rows = folder.result, folder.rows
    assert whole["best_step"] < whole["steps"]  # else the last average would pass for the best one
    (folder.path / "result.json").write_text(json.dumps({**whole, "status": "running", "metrics": {}}))
    (folder.path / "checkpoints" / "last.ckpt.part-1").write_bytes(b"begun")
    resumed = folder.resume()
    assert resumed["metrics"] == whole["metrics"] and resumed["best_step"] == whole["best_step"]
    assert folder.rows == rows
    assert not list(folder.path.rglob("*.part-*"))


@pytest.mark.parametrize("measures", ["+averaging=swa averaging.start=0.2", "optimizer=schedule_free", "+guard=precise_norm"])
def test_frozen_statistics_stay_where_all_was_trained_before(folder, with_plugin, extra, measures):
    with_plugin(stopper(extra, 2))
    stopped = folder.train("model=resnet18", "data.train_samples=200", "+finetuning=freeze", *measures.split(), "max_steps=4")
    assert stopped["status"] == "stopped" and stopped["steps"] == 3
    resumed = folder.resume("max_steps=3")
    assert resumed["status"] == "finished" and resumed["best_step"] == 3
    last, best = (torch.load(folder.path / "checkpoints" / f"{name}.ckpt")["state_dict"] for name in ("last", "best"))
    norms = [name for name in last if "running_" in name]
    assert norms and all(torch.equal(last[name], best[name]) for name in norms)


def test_killed_before_the_first_checkpoint_starts_over(folder):
    words = (*STATEFUL, "max_steps=20")
    whole = folder.train(*words)
    rows = folder.rows
    for path in (folder.path / "checkpoints").iterdir():
        path.unlink()
    (folder.path / "result.json").write_text(json.dumps({**whole, "status": "running"}))
    (folder.path / "metrics.csv").write_text("step,lr\n5,0.1\n99,0.1")
    assert folder.resume()["metrics"] == whole["metrics"]
    assert folder.rows == rows


def test_a_row_cut_short_is_not_kept(folder, folders, with_plugin, extra):
    words = ("trainer.log_every_n_steps=1", "trainer.save_every_n_steps=10", "max_steps=30")
    whole = folders("whole")
    whole.train(*words)

    class Dies(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 17:
                raise SystemExit

    with_plugin(Dies)
    with pytest.raises(SystemExit):
        folder.train(*words)
    text = (folder.path / "metrics.csv").read_text()
    cut = int(np.random.default_rng().integers(1, len(text.splitlines()[-1])))
    (folder.path / "metrics.csv").write_text(text[: text.rindex("\n16,") + 1 + cut])
    with_plugin()
    folder.resume()
    assert folder.rows == whole.rows


def test_a_limit_below_what_is_done_is_one_line(folder, with_plugin, extra):
    with_plugin(stopper(extra, 90))
    folder.train("max_epochs=5")
    with_plugin()
    with pytest.raises(RecipeError) as error:
        folder.resume("max_epochs=1")
    assert "\n" not in str(error.value) and "max_epochs" in str(error.value)


# ------------------------------------------------------------------ evaluated


def test_evaluating_gives_the_metrics_of_the_run(folder, tmp_path):
    result = folder.train("+regularizer=dropout", "+averaging=ema", "+adversarial=fgsm", "max_epochs=2")
    tested = {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
    assert {"test/loss", "test/acc", "test/acc_pgd"} <= tested.keys()
    assert measure(folder) == tested
    assert folder.result == {"format": FORMAT, **result}  # measuring again changes nothing

    mean = measure(folder, "+inference=mc_dropout", "inference.samples=3")
    assert "test/entropy" in mean and mean["test/loss"] != tested["test/loss"]
    assert mean == measure(folder, "+inference=mc_dropout", "inference.samples=3")

    data = build_data(result["config"])
    data.setup()
    test = data.splits["test"]
    whole = np.concatenate([test.x.numpy()] * 2), np.concatenate([test.targets[""].numpy()] * 2)
    np.savez(tmp_path / "own.npz", x_train=whole[0], y_train=whole[1], x_test=test.x.numpy(), y_test=test.targets[""].numpy())
    assert measure(folder, "data=npz", f"data.path={tmp_path / 'own.npz'}") == pytest.approx(tested)


def test_the_best_weights_are_tested(folder):
    result = folder.train("max_steps=60", "trainer.val_every_n_steps=6", "optimizer.lr=3.0")
    assert result["best_step"] < result["steps"]
    assert measure(folder) == {name: value for name, value in result["metrics"].items() if name.startswith("test/")}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.random.rand(40, 9, 9), "y": np.arange(40) % 10}, r"shape \(1, 8, 8\), the data has \(1, 9, 9\)"),
        ({"x": np.random.rand(60, 8, 8), "y": np.arange(60) % 11}, "trained on 10 classes, the data has 11 classes"),
        ({"x": np.random.rand(40, 8, 8), "y": np.random.rand(40)}, "trained on 10 classes, the data has a number"),
    ],
)
def test_data_that_the_run_does_not_fit_is_refused(trained, arrays, message, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(RecipeError, match=message):
        measure(trained, "data=npz", f"data.path={tmp_path / 'own.npz'}")


def test_a_run_that_has_not_validated_is_refused(folder, with_plugin, extra):
    with_plugin(stopper(extra, 5))
    folder.train()
    with pytest.raises(RecipeError, match=r"has no checkpoints/best.ckpt.*resume="):
        measure(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from tests.recipes.conftest import Folder

    folder = Folder(tmp_path_factory.mktemp("trained") / "run")
    folder.train("max_steps=3")
    return folder


# ------------------------------------------------------------------ a config that is not trusted

HOSTILE = [
    ("model", {"_target_": "os.system", "command": "touch {marker}"}),
    ("model", {"_target_": "torch.serialization.load", "f": "{marker}"}),
    ("optimizer", {"_target_": "builtins.eval", "source": "open('{marker}', 'w')"}),
    ("optimizer", {"_target_": "torch.hub.load", "repo_or_dir": "{marker}"}),
    ("data", {"_target_": "subprocess.Popen", "args": ["touch", "{marker}"]}),
    ("data", {"_target_": "recipes.cli.train.main", "words": []}),
    ("scheduler", {"_target_": "plugins.base.derive_seed", "seed": 1}),
    ("scheduler", {"_target_": "lightning.fabric.plugins.io.torch_io.TorchCheckpointIO"}),
    ("regularizer", {"dropout": {"_target_": "pathlib.Path.touch", "self": "{marker}"}}),
    (
        "loss",
        {
            "_target_": "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
            **{"entrypoint": "touch", "args": ["{marker}"], "env": {}, "stdout": None, "stderr": None, "local_rank_id": 0},
        },
    ),
]


def build_all(config):
    build_data(config)
    build_loss(config)
    build_plugins(config)
    build_module(config, (1, 8, 8), 10)


@pytest.mark.parametrize(("group", "node"), HOSTILE)
def test_a_config_that_names_something_else_is_refused_and_nothing_is_called(trained, group, node, tmp_path):
    marker = tmp_path / "called"
    node = json.loads(json.dumps(node).replace("{marker}", str(marker)))
    hostile = trained.copy(tmp_path / "hostile")
    config = read_run(Catalogue(), hostile.path)
    good = yaml.safe_load((hostile.path / "config.yaml").read_text())
    (hostile.path / "config.yaml").write_text(yaml.safe_dump({**good, group: node}))
    for use in (lambda: read_run(Catalogue(), hostile.path), lambda: load_run(hostile.path)):
        with pytest.raises(RecipeError) as error:
            use()
        assert "\n" not in str(error.value)
    config[group] = node  # as if it had come past the first check
    with pytest.raises(RecipeError, match="refused"):
        build_all(config)
    assert not marker.exists()


# ------------------------------------------------------------------ phases


def asking(extra, *phases):
    """A technique that asks for these phases, one after the other, and tells what it saw."""

    class Asks(extra):
        option = "asks"
        seen = []

        def next_phase(self, result):
            return phases[result["phases"] - 1] if result["phases"] <= len(phases) else None

        def on_train_start(self, trainer, module):
            weights = {name: value.clone() for name, value in module.model.state_dict().items()}
            self.seen.append((module.phase["index"], len(trainer.train_dataloader.split), weights, module.steps_done))

        def on_train_end(self, trainer, module):
            self.end = {name: value.clone() for name, value in module.model.state_dict().items()}
            Asks.ends = [*getattr(Asks, "ends", []), self.end]

    return Asks


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_phases(folder, with_plugin, extra, capsys):
    asks = asking(
        extra,
        Phase("retrain", max_steps=12, fresh=True, all_data=True),
        Phase("continue", max_steps=300, all_data=True, stop_below=("val/loss", 0.2)),
    )
    with_plugin(asks)
    result = folder.train("max_steps=20", "trainer.val_every_n_steps=5", "+averaging=ema", "optimizer=momentum")
    (first, size, start, _), (second, larger, again, _), (third, largest, on, _) = asks.seen
    assert (first, second, third) == (0, 1, 2) and (size, larger, largest) == (1293, 1437, 1437)
    drawn = {name: value for name, value in start.items() if name.endswith(("weight", "bias"))}
    assert drawn and same(drawn, again)
    assert not same(start, again)  # the statistics of the inputs are those of all data
    assert same(asks.ends[1], on)
    assert result["phases"] == 3 and 32 < result["steps"] < 332 and result["phase_begins"] == [0, 20, 32]
    rows = [row for row in folder.rows if "val/loss" in row]
    assert [int(row["step"]) for row in rows[:7]] == [5, 10, 15, 20, 25, 30, 32]
    assert all(float(row["val/loss"]) >= 0.2 for row in rows[7:-1]) and float(rows[-1]["val/loss"]) < 0.2
    assert int(rows[-1]["step"]) == result["steps"] == result["best_step"]
    best = load_checkpoint(folder.path / "checkpoints" / "best.ckpt")["state_dict"]
    assert same(asks.ends[2], {name.removeprefix("model."): value for name, value in best.items()})


def test_with_all_data_the_last_weights_are_the_best(folder, with_plugin, extra):
    """Validation samples that were trained on choose nothing."""

    class Worse(asking(extra, Phase("more", max_steps=4, all_data=True))):
        def after_step(self, module, optimizer):
            if module.phase["index"] == 1:
                with torch.no_grad():
                    for parameter in module.parameters():
                        parameter.mul_(0.5)

    with_plugin(Worse)
    result = folder.train("max_steps=40", "trainer.val_every_n_steps=2")
    assert result["best_step"] == result["steps"] == 44


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("at", [14, 19, 20, 21, 27])
def test_phases_resumed(folder, folders, with_plugin, extra, at, fresh):
    words = (*STATEFUL, "max_steps=20", "trainer.val_every_n_steps=5", "trainer.log_every_n_steps=1")
    phase = Phase("more", max_steps=12, fresh=fresh, all_data=True)
    whole = folders("whole")
    with_plugin(asking(extra, phase))
    whole.train(*words)
    with_plugin(asking(extra, phase), stopper(extra, at))
    assert folder.train(*words)["status"] == "stopped"
    asks = asking(extra, phase)
    with_plugin(asks)
    result = folder.resume()
    assert result["metrics"] == whole.result["metrics"] and result["best_step"] == whole.result["best_step"]
    assert result["phases"] == 2 and result["steps"] == 32 and result["phase_begins"] == [0, 20]
    assert asks.seen[0][3] == at + 1 if at < 19 else True
    assert folder.rows == whole.rows


def test_a_run_killed_at_the_end_of_a_phase_goes_on_with_the_next(folder, folders, with_plugin, extra, monkeypatch):
    """The end of the first phase is saved, the second has not begun: weights as they are at the end of the first."""
    words = (*STATEFUL, "max_steps=20", "trainer.val_every_n_steps=4")
    with_plugin(asking(extra, Phase("more", max_steps=6)))
    whole = folders("whole")
    whole.train(*words)

    def die(*_):
        raise SystemExit

    with monkeypatch.context() as context:
        context.setattr("recipes.run.phases.following", die)
        with pytest.raises(SystemExit):
            folder.train(*words)
    resumed = folder.resume()
    assert resumed["metrics"] == whole.result["metrics"] and folder.rows == whole.rows


def test_a_phase_that_stops_by_an_unknown_metric_is_one_line(folder, with_plugin, extra):
    with_plugin(asking(extra, Phase("more", max_steps=3, stop_below=("val/los", 1.0))))
    with pytest.raises(RecipeError, match="no metric val/los to stop by; there are .*val/loss"):
        folder.train("max_steps=2")


# ------------------------------------------------------------------ sizes and settings at the edge


def test_no_steps_at_all(folder):
    result = folder.train("max_steps=0", "scheduler=one_cycle", "optimizer=momentum")
    assert result["status"] == "finished" and result["steps"] == 0 and result["best_step"] == 0
    assert {"val/loss", "test/acc"} <= result["metrics"].keys() and "train/loss" not in result["metrics"]
    assert measure(folder)["test/acc"] == result["metrics"]["test/acc"]


@pytest.mark.parametrize(
    "words",
    [
        ("max_steps=1", "scheduler=cosine"),
        ("max_epochs=2", "data.batch_size=full"),
        ("max_epochs=2", "data.batch_size=full", "trainer.accumulate_grad_batches=4"),
        ("max_epochs=2", "data.batch_size=5000", "trainer.accumulate_grad_batches=2"),
        ("max_steps=3", "trainer.val_every_n_steps=100"),
        ("max_steps=7", "trainer.val_every_n_steps=1", "trainer.log_every_n_steps=3"),
        ("max_steps=4", "trainer.precision=64-true"),
        ("max_steps=4", "trainer.precision=bf16-true"),
        ("max_steps=4", "trainer.precision=bf16-mixed", "+wrapper=sam"),
        ("max_steps=4", "trainer.deterministic=true", "model=cnn", "+augmentation=crop"),
        ("max_steps=4", "optimizer=adamw", "optimizer.no_decay=[bias,norm]", "normalization=batch", "model=cnn"),
    ],
)
def test_settings(folder, words):
    result = folder.train(*words)
    assert result["status"] == "finished" and result["steps"] > 0
    assert all(np.isfinite(value) for value in result["metrics"].values())
    assert measure(folder) == {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
    torch.use_deterministic_algorithms(False)


def test_full_batch_is_one_step_an_epoch(folder):
    result = folder.train("max_epochs=3", "data.batch_size=full")
    assert result["steps"] == 3 and result["epochs"] == 3


@pytest.mark.slow
def test_two_processes(folder, folders):
    """A real start of two processes equals one with two parts, and stops when one of them is asked to."""
    words = ("model=linear", "logger=[]", "trainer.accelerator=cpu", "max_epochs=2", "optimizer=momentum")
    several = ("trainer.devices=2", "trainer.strategy=ddp")
    one = folders("one").train(*words, "data.batch_size=16", "trainer.accumulate_grad_batches=2")
    folder.path.mkdir()
    done = subprocess.run(
        [*arguments("train.py", *words, *several), f"hydra.run.dir={folder.path}"],
        env=variables(),
        cwd=folder.path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("parameters, ") == 1 and done.stdout.count("best step") == 1
    assert folder.result["metrics"] == pytest.approx(one["metrics"], abs=1e-4)
    assert (folder.path / "train.log").read_text().count("started: ") == 1
    assert [row["step"] for row in folder.rows] == [row["step"] for row in folders("one").rows]

    command = [*arguments("train.py", f"resume={folder.path}", "max_epochs=100000")]
    process = subprocess.Popen(
        command, env=variables(), cwd=folder.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while len(folder.rows) < 8 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 143 and folder.result["status"] == "stopped", out


@pytest.mark.slow
def test_compiled(folder, folders):
    words = ("max_steps=6", "+regularizer=dropout", "+wrapper=sam")
    plain = folders("plain").train(*words)
    compiled = folder.train(*words, "trainer.compile=true")
    assert compiled["metrics"]["val/loss"] == pytest.approx(plain["metrics"]["val/loss"], rel=1e-3)
    assert measure(folder)["test/acc"] == compiled["metrics"]["test/acc"]


@pytest.mark.parametrize("samples", [6, 12])
def test_tiny_data(folder, tmp_path, samples):
    np.savez(tmp_path / "tiny.npz", x=np.random.rand(samples, 3), y=np.arange(samples) % 2)
    words = ("data=npz", f"data.path={tmp_path / 'tiny.npz'}", "data.validation=0.3", "data.test=0.34", "max_epochs=3")
    result = folder.train(*words)
    assert result["status"] == "finished" and result["steps"] == 3


def test_a_regression_with_one_sample_to_validate(folder, tmp_path):
    x = np.random.randn(20, 4)
    np.savez(tmp_path / "line.npz", x=x, y=x @ [1.0, 2, 3, 4])
    words = ("data=npz", f"data.path={tmp_path / 'line.npz'}", "data.validation=0.05", "model=linear", "optimizer.lr=0.05")
    result = folder.train(*words, "max_epochs=100", "+stopping=early", "stopping.patience=100", "data.batch_size=8")
    assert result["monitor"] == "val/loss" and math.isfinite(result["metrics"]["test/loss"])  # of a model that one sample chose
    assert not any("acc" in name for name in result["metrics"])
    assert measure(folder)["test/loss"] == result["metrics"]["test/loss"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trainer.val_every_n_steps=0", "trainer.val_every_n_steps must be a whole number ≥ 1, got 0"),
        ("trainer.val_every_n_steps=abc", "trainer.val_every_n_steps must be"),
        ("trainer.num_threads=-1", "trainer.num_threads must be"),
        ("trainer.save_every_n_steps=-5", "trainer.save_every_n_steps must be"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must be"),
        ("trainer.accelerator=gpus", "trainer.accelerator"),
        ("trainer.devices=0", "trainer.devices must be"),
        ("trainer.devices=-1", "trainer.devices=-1 means all GPUs, and there is none"),
        ("trainer.monitor=3", "trainer.monitor must be"),
        ("trainer.monitor=val/los", "trainer.monitor=val/los is no metric of this run: there are val/acc, val/loss"),
        ("max_epochs=0", "max_epochs must be"),
        ("max_steps=-3", "max_steps"),
        ("data.batch_size=0", "data.batch_size must be"),
        ("data.validation=1.5", "data.validation must be"),
        ("data.validation=0.9999", "data.validation=0.9999 does not split"),
        ("optimizer.lr=-1", "optimizer"),
        ("optimizer.no_decay=[weight]", "bias or norm"),
    ],
)
def test_bad_values_are_one_line(folder, word, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RecipeError, match=message) as error:
            folder.train(word, "max_epochs=1") if "max_" not in word else folder.train(word)
    assert "\n" not in str(error.value)
