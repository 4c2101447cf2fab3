"""Validation curves that are written down, what the algorithm makes of them, and runs that have them."""

import math

import numpy as np
import torch
import torch.distributed as dist

from plugins.stopping.early import EarlyStopping
from recipes.check import harness
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.engine.checkpoint import load_checkpoint
from recipes.run import run, train
from tests.recipes.conftest import SMALL, Extra
from tests.recipes.run.test_run import stopper

EVERY = 3  # steps between evaluations
WORDS = ("stopping.monitor=val/error", f"stopping.every_n_steps={EVERY}", "stopping.patience=2", "max_steps=90")
WORDS += ("optimizer=momentum", "scheduler=cosine", "+regularizer=dropout", "data.batch_size=32", "data.train_samples=120")


def algorithm_7_1(errors, n, p, min_delta=0.0):
    """Written out as in the book, for a list of validation errors in place of training; also j at each evaluation."""
    theta, i, j, v = 0, 0, 0, math.inf
    theta_star, i_star, trace = theta, i, []
    while j < p and theta < len(errors):
        theta, i = theta + 1, i + n
        v_prime = errors[theta - 1]
        if v_prime < v - min_delta:
            j, theta_star, i_star, v = 0, theta, i, v_prime
        else:
            j += 1
        trace.append((v, i_star, j))
    return theta_star, i_star, theta, trace


def drawn():
    """A validation curve, its i*, and the steps until the stop."""
    while True:
        errors = np.random.default_rng().normal(size=25).round(1).tolist()
        errors[:6] = sorted(errors[:6], reverse=True)  # so that training gets somewhere
        _, i_star, evaluations, _ = algorithm_7_1(errors, EVERY, 2)
        if evaluations < len(errors) and i_star > EVERY:
            return errors, i_star, EVERY * evaluations


def scripted(errors, base=Extra):
    """A technique that measures val/error from a list, by how many steps are done, and keeps the weights at the ends of each phase."""

    class Script(base):
        option, on_shards, starts, ends, seen = "script", True, {}, {}, {}

        def measure(self, module, batch, outputs, split):
            value = errors[min(module.steps_done // EVERY, len(errors)) - 1]
            return {"error": torch.full((len(batch),), float(value))}

        def on_train_start(self, trainer, module):
            self.starts[module.phase["index"]] = copied(module)

        def on_validation_epoch_end(self, trainer, module):
            self.seen[module.phase["index"], module.steps_done] = copied(module)

        def on_train_end(self, trainer, module):
            self.ends[module.phase["index"]] = copied(module)

    return Script


def copied(module):
    """The tensors of a model by name."""
    return {name: value.clone() for name, value in module.model.state_dict().items()}


def same(first, second):
    """Whether tensors by name are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def final(folder, name="best"):
    """The weights in a checkpoint of a run."""
    return load_checkpoint(folder.path / "checkpoints" / f"{name}.ckpt")["state_dict"]


def what_phases_did(result):
    """What the phases of a run have done, without the time that it took."""
    return [{name: value for name, value in phase.items() if name != "seconds"} for phase in result["phase_results"]]


def assert_goes_on(words, at, folders, with_plugin, extra, script):
    """A run that is stopped in a step goes on in that phase, and ends as one that was not."""
    with_plugin(script)
    whole = folders("whole")
    whole.train(*words)
    with_plugin(script, stopper(extra, at))
    assert folders("run").train(*words, "trainer.save_every_n_steps=1")["status"] == "stopped"
    with_plugin(script)
    result = folders("run").resume()
    assert what_phases_did(result) == what_phases_did(whole.result) and result["metrics"] == whole.result["metrics"]
    assert same(final(folders("run")), final(whole)) and folders("run").rows == whole.rows
    assert len(result["phase_results"]) == 2 and result["epochs"] == whole.result["epochs"]


# ------------------------------------------------------------------ on two processes


def early_on_a_rank(folder, errors):
    """Of a training that is stopped, without and with an average of its weights: its steps, i*, and whether it ends with what was evaluated then."""
    found, build_plugins = [], harness.build_plugins
    strategy = "ddp" if dist.is_initialized() else "auto"
    words = (
        f"stopping.every_n_steps={EVERY}",
        "stopping.patience=2",
        "stopping.monitor=val/error",
        f"trainer.strategy={strategy}",
    )
    for names in (["stopping/early"], ["stopping/early", "averaging/ema"]):
        script = scripted(errors)
        harness.build_plugins = lambda config, script=script: [*build_plugins(config), script()]
        try:
            module = harness.fit(harness.config_of(names, *words), folder / str(len(names)), 90)
        finally:
            harness.build_plugins = build_plugins
        (early,) = [plugin for plugin in module.plugins if isinstance(plugin, EarlyStopping)]
        assert len(module.plugins) >= len(names) + 1
        found.append((module.steps_done, early.best_step, same(copied(module), script.seen[0, early.best_step])))
    return found


def of_a_rank(path, words, errors):
    """What the phases of a run on two processes have done, as each of them has it."""
    words = [*SMALL, *words, "model=mlp", "model.hidden=[16]", "trainer.devices=2"]
    build_plugins, script = run.build_plugins, scripted(errors)
    run.build_plugins = train.build_plugins = lambda config: [*build_plugins(config), script()]
    path.mkdir(exist_ok=True)
    dist.barrier()
    return what_phases_did(train.train(finish(Catalogue(), compose(words), words), path, words))
