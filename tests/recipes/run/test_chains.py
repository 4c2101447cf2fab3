"""Chains of stops, kills, limits, phases and resumes, drawn at random, end where the uninterrupted run ends, bit for bit."""

import os
import random
import shutil
import signal
import sys
import traceback
from functools import partial

import numpy as np
import pytest
import torch

from plugins.base import Phase
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.engine.checkpoint import load_checkpoint
from recipes.run import train
from tests.recipes.conftest import SMALL

EPOCH = 6  # steps
MOMENTS = ("step", "update", "validation", "test", "end", "replace")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Few samples that are hard to tell apart, so that validation goes up and down."""
    path = tmp_path_factory.mktemp("data") / "own.npz"
    rng = np.random.default_rng(0)
    y = np.arange(80) % 3
    np.savez(path, x=rng.normal(size=(80, 6)) + y[:, None] * 0.4, y=y)
    return path


def draw_words(rng, arrays):
    """A run's words without its limit, and whether what it does depends on the limit."""
    words = ["data=npz", f"data.path={arrays}", "data.validation=0.2", "data.test=0.2", f"seed={rng.randrange(1000)}"]
    parts = rng.choice((1, 1, 2))
    words += [f"data.batch_size={8 // parts}", f"trainer.accumulate_grad_batches={parts}", "model=mlp", "model.hidden=[5]"]
    words += [f"trainer.save_every_n_steps={rng.choice((0, 1, 2, 3, 5, 6))}", f"optimizer.lr={rng.choice((0.05, 0.5, 3.0))}"]
    words += [f"trainer.log_every_n_steps={rng.choice((1, 2, 3, 5, 6))}"]
    words += rng.choice(([], [], *([f"trainer.val_every_n_steps={every}"] for every in (1, 2, 3, 4, 5, 7, 11))))
    techniques = {
        "+averaging=ema": ["averaging.decay=0.8"],
        "+regularizer=dropout": [],
        "+augmentation=mixup": rng.choice(([], [], ["augmentation.mixup.when=[0.2,0.7]"])),
        "+stopping=early": ["stopping.patience=99", f"stopping.monitor={rng.choice(('val/acc', 'val/loss'))}"],
        "+guard=nan_rollback": [f"guard.nan_rollback.every_n_steps={rng.choice((1, 4, 9))}"],
        "+diagnostics=[generalization_gap,gradient_stats]": ["diagnostics.gradient_stats.every_n_steps=3"],
        "+wrapper=sam": [],
        "optimizer=momentum": [],
    }
    if rng.random() < 0.2:
        del techniques["+averaging=ema"]
        techniques["+averaging=swa"] = ["averaging.start=0.4"]
    for word, further in techniques.items():
        if rng.random() < 0.4:
            words += [word, *further]
    scheduler = rng.choice(([], [], ["scheduler=cosine", "scheduler.steps=15"], ["scheduler=linear"], ["scheduler=one_cycle"]))
    of_shares = {"augmentation.mixup.when=[0.2,0.7]", "+averaging=swa"} & {*words}
    return [*words, *scheduler], len(scheduler) == 1 or bool(of_shares)


def draw_phases(rng):
    return [
        Phase(f"phase {number}", max_steps=rng.randint(1, 9), fresh=rng.random() < 0.5, all_data=rng.random() < 0.5)
        for number in range(rng.choice((0, 0, 0, 1, 2)))
    ]


def draw_limit(rng, least, most):
    """A limit in steps or epochs, as the words of a resume, and as steps."""
    epochs = range(max(1, -(-least // EPOCH)), most // EPOCH + 1)
    if epochs and rng.random() < 0.4:
        number = rng.choice(epochs)
        return ("max_steps=-1", f"max_epochs={number}"), number * EPOCH
    number = rng.randint(least, most)
    return (f"max_steps={number}",), number


def striking(extra, phases, strike):
    """A technique that asks for phases, counts epochs, and strikes once: a moment, a step of the whole run, and what to do."""
    moment, step, act = strike or (None, None, None)

    class Strikes(extra):
        def __init__(self):
            self.epochs = [0, 0]

        def strike(self, module, now):
            if moment == now and module.phase["steps"] + module.steps_done >= step and not Strikes.struck:
                Strikes.struck = True
                act()

        def next_phase(self, result):
            return phases[result["phases"] - 1] if result["phases"] <= len(phases) else None

        def on_train_start(self, trainer, module):
            self.epochs = self.epochs if module.steps_done else [0, 0]
            keeper = next(callback for callback in trainer.callbacks if hasattr(callback, "best_score"))
            saves = trainer.save_checkpoint

            def save(path, *arguments, **further):
                saves(path, *arguments, **further)
                if path == keeper.best_path:  # a new best model is there, and last.ckpt knows of none
                    self.strike(module, "replace")

            trainer.save_checkpoint = save

        def on_train_epoch_start(self, trainer, module):
            self.epochs[0] += 1

        def on_train_epoch_end(self, trainer, module):
            self.epochs[1] += 1

        def transform_batch(self, batch, module):
            self.strike(module, "step")
            return batch

        def after_step(self, module, optimizer):
            self.strike(module, "update")

        def measure(self, module, batch, outputs, split):
            self.strike(module, "test" if split == "test" else "validation")
            return {}

        def on_train_end(self, trainer, module):
            self.strike(module, "end")

        def state_dict(self):
            return {"epochs": list(self.epochs)}

        def load_state_dict(self, state):
            self.epochs = list(state["epochs"])

    Strikes.struck = False
    return Strikes


def stop():
    signal.raise_signal(signal.SIGTERM)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(act):
    """Do it in a process of its own, which may be killed."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status


def last_of(folder):
    """Phase and steps from which a run would go on."""
    path = folder.path / "checkpoints" / "last.ckpt"
    if not path.exists():
        return 0, 0
    checkpoint = load_checkpoint(path)
    return checkpoint["recipe"]["phase"]["index"], int(checkpoint["global_step"])


def contents(path):
    checkpoint = load_checkpoint(path)
    checkpoint.pop("loops")  # Lightning's own, which nothing reads
    del checkpoint["recipe"]["phase"]["seconds"], checkpoint["recipe"]["total_steps"], checkpoint["epoch"]
    for ended in checkpoint["recipe"]["phase"].get("ended", ()):
        del ended["seconds"]
    return checkpoint


def assert_same(first, second, where=""):
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name, value in first.items():
            assert_same(value, second[name], f"{where}/{name}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, (value, other) in enumerate(zip(first, second, strict=True)):
            assert_same(value, other, f"{where}/{number}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first.nan_to_num(), second.nan_to_num()), where
    else:
        assert first == second or (first != first and second != second), (where, first, second)


def assert_same_end(folder, whole):
    for name in ("status", "metrics", "best_step", "steps", "epochs", "phases", "monitor", "stopped_early", "techniques"):
        assert_same(folder.result[name], whole.result[name], name)
    kept = {path.name for path in (whole.path / "checkpoints").iterdir()}
    assert {path.name for path in (folder.path / "checkpoints").iterdir()} == kept
    for name in kept:
        assert_same(*(contents(each.path / "checkpoints" / name) for each in (folder, whole)), name)
    files = {path.name for path in whole.path.iterdir() if path.is_file()} - {"result.json", "config.yaml", "train.log"}
    for name in files:
        assert (folder.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def start(config, folder, limit, resumed=False):
    """Start the run, or go on with it, with a limit."""
    folder.path.mkdir(exist_ok=True)
    limits = {name: int(value) for name, value in (word.split("=") for word in limit)}
    train.train({**config, **limits, "resume": str(folder.path) if resumed else None}, folder.path, limit)


def run_chain(rng, folder, whole, arrays, with_plugin, extra):
    """One chain, told as it goes, and the uninterrupted run."""
    (words, fixed), phases = draw_words(rng, arrays), draw_phases(rng)
    limit, most = draw_limit(rng, 1, 4 * EPOCH)
    print("words", *words, "limit", *limit, *phases)
    words += SMALL
    config = finish(Catalogue(), compose(words), words)
    started, last, final, chain = False, (0, 0), None, rng.randint(1, 4)
    for number in range(chain + 1):
        if number == chain:
            now, steps, strike = limit, most, None
        else:
            now, steps = (limit, most) if fixed else draw_limit(rng, last[1] if last[0] == 0 else 0, most)
            act = rng.choice((None, stop, kill))
            end = steps + sum(phase.max_steps for phase in phases)
            strike = act and (rng.choice(MOMENTS), rng.randint(0, max(end, 1)), act)
        if final:
            now, steps = final  # a phase has begun that builds on the end of another one
        print(number, *now, strike)
        with_plugin(striking(extra, phases, strike))
        begin = partial(start, config, folder, now, started)
        if strike and strike[2] is kill:
            in_child(begin)
        else:
            begin()
        started = (folder.path / "config.yaml").exists()
        last = last_of(folder)
        if last[0] or (phases and folder.result["status"] == "finished"):
            final = final or (now, steps)
    with_plugin(striking(extra, phases, None))
    start(config, whole, (final or (limit,))[0])


def check_chains(number, tmp_path, folders, arrays, with_plugin, extra):
    torch.set_num_threads(1)  # children of a process with threads would wait for them
    for _ in range(number):
        seed = int(os.environ.get("CHAIN", random.randrange(10**9)))
        print("chain", seed)
        run_chain(random.Random(seed), folders("chain"), folders("whole"), arrays, with_plugin, extra)
        assert_same_end(folders("chain"), folders("whole"))
        for folder in (folders("chain"), folders("whole")):
            shutil.rmtree(folder.path)


def test_two_chains(tmp_path, folders, arrays, with_plugin, extra):
    check_chains(2, tmp_path, folders, arrays, with_plugin, extra)


@pytest.mark.parametrize(
    "further",
    [
        ["+averaging=ema", "averaging.decay=0.8"],
        ["+averaging=swa", "averaging.start=0.5"],
        ["optimizer=schedule_free", "scheduler=constant"],
        ["+averaging=ema", "+stopping=early", "stopping.patience=100"],
        ["+inference=temperature"],
    ],
    ids=" ".join,
)
def test_what_ends_a_training_is_done_once_more_where_it_was_killed_in_it(folders, arrays, with_plugin, extra, further):
    """All steps were made, and the last one was saved: only the end is left."""
    torch.set_num_threads(1)
    words = [
        *SMALL,
        "data=npz",
        f"data.path={arrays}",
        "data.validation=0.2",
        "data.test=0.2",
        "data.batch_size=8",
        "max_steps=9",
    ]
    words += ["model=mlp", "model.hidden=[5]", "trainer.val_every_n_steps=4", "trainer.save_every_n_steps=1", *further]
    config = finish(Catalogue(), compose(words), words)
    with_plugin(striking(extra, [], ("end", 0, kill)))
    in_child(partial(start, config, folders("chain"), ["max_steps=9"]))
    assert folders("chain").result["status"] == "running"
    with_plugin(striking(extra, [], None))
    start(config, folders("chain"), ["max_steps=9"], resumed=True)
    start(config, folders("whole"), ["max_steps=9"])
    assert_same_end(folders("chain"), folders("whole"))


@pytest.mark.slow
def test_forty_chains(tmp_path, folders, arrays, with_plugin, extra):
    check_chains(40, tmp_path, folders, arrays, with_plugin, extra)
