"""The examples do what they are shown to do: a script for the techniques from Python, and an installed package with some of its own."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from recipes.compare.present import present
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.composing import check, compose, finish
from recipes.config.searching import register
from recipes.run.train import train
from tests.command import command, once, variables

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCE = EXAMPLES / "own_techniques"
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in SOURCE.glob("own_techniques/conf/*/*.yaml"))
BESIDE = {  # another technique, of ours, for each
    "regularizer=small_outputs": "regularizer=[small_outputs,dropout]",
    "augmentation=dimming": "augmentation=[dimming,mixup]",
    "diagnostics=weight_size": "diagnostics=[weight_size,gradient_stats]",
}
OFF = {
    "regularizer=small_outputs": "regularizer.small_outputs.weight=0",
    "augmentation=dimming": "augmentation.dimming.strength=0",
    "adversarial=random_corner": "adversarial.eps=0",
    "clipping=soft": "clipping.max_norm=.inf",
    "wrapper=extragradient": "wrapper.extragradient.step_size=0",
    "loss=poly": "loss.weight=0",
    "scheduler=inverse_time": "scheduler.decay=0",
    "stopping=good_enough": "stopping.loss=0",
    "diagnostics=weight_size": "diagnostics.weight_size.every_n_steps=1",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder into which pip has installed the package."""

    def install(folder):
        shutil.copytree(SOURCE, folder / "source")  # setuptools builds where the source lies
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*pip, "--target", folder / "packages", folder / "source"], check=True, env=variables())

    return once(tmp_path_factory.getbasetemp(), "own_techniques", install) / "packages"


@pytest.fixture
def run(packages, monkeypatch, tmp_path):
    """Trains in this process with the package installed; returns the result."""
    monkeypatch.syspath_prepend(packages)

    def short(name, *words):
        words = ["max_steps=6", "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu", *words]
        catalogue = Catalogue(installed_folders())
        words = check(catalogue, words)
        (tmp_path / name).mkdir()
        return train(finish(catalogue, compose(words), words), tmp_path / name, words)

    register(installed_folders())
    yield short
    register([])
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_techniques"]:
        del sys.modules[name]


def added(option, catalogue):
    """How an option is typed."""
    return catalogue.spelling(*option.split("=", 1))


def test_every_option_has_a_class_and_a_group_of_ours():
    assert len(OPTIONS) >= 12
    for option in OPTIONS:
        group, _, name = option.partition("=")
        text = (SOURCE / "own_techniques" / "conf" / group / f"{name}.yaml").read_text()
        node = yaml.safe_load(text)
        target = (node.get(name) or node)["_target_"]
        assert target.startswith(f"own_techniques.{group}.{name}.")
        assert (SOURCE / (target.rpartition(".")[0].replace(".", "/") + ".py")).exists()
        assert group in Catalogue().groups and name not in Catalogue().groups[group], "ours would take its place"
        assert re.search(rf"^\| `\+?{option}` \|", (SOURCE / "README.md").read_text(), re.MULTILINE), "the README names all"


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_the_package_trains_alone_and_beside_ours(option, run):
    catalogue = Catalogue(installed_folders())
    group, _, name = option.partition("=")
    alone = run("alone", added(option, catalogue))
    beside = ["+wrapper=sam"] if group == "optimizer" else ["optimizer=adam", "+regularizer=l2"]
    beside = [word for word in beside if not word.startswith(f"+{group}=")]
    pair = run("pair", added(BESIDE.get(option, option), catalogue), *beside)
    assert alone["status"] == pair["status"] == "finished" and pair["steps"] <= 6
    for result in (alone, pair):
        assert result["choices"][group][:1] == [name] or name in result["choices"][group]
        assert math.isfinite(result["metrics"]["val/loss"])
        if group not in ("model", "data", "loss", "scheduler", "optimizer"):
            assert name in result["techniques"]
    if group in ("optimizer", "scheduler"):
        assert name in alone["techniques"]


@pytest.mark.parametrize("option", OFF)
def test_an_option_of_the_package_at_strength_zero_changes_no_bit(option, run):
    bare = run("bare")
    off = run("off", added(option, Catalogue(installed_folders())), OFF[option])
    assert {name: off["metrics"][name] for name in bare["metrics"]} == bare["metrics"]


def test_a_comparison_labels_options_of_the_package(run, tmp_path, capsys):
    run("runs")
    run("runs_small", "+regularizer=small_outputs")
    run("runs_pair", "+regularizer=[small_outputs,dropout]", "optimizer=normalized_gradient")
    (comparison,) = present([tmp_path / name for name in ("runs", "runs_small", "runs_pair")], tmp_path / "compared")
    assert {group.label for group in comparison.groups} == {
        "optimizer=sgd",
        "optimizer=sgd +regularizer=small_outputs",
        "optimizer=normalized_gradient +regularizer=[small_outputs,dropout]",
    }


@pytest.mark.slow
def test_the_installed_package_on_the_command_line(packages, tmp_path):
    shown = command("train.py", "--help", cwd=tmp_path, PYTHONPATH=str(packages))
    for option in OPTIONS:
        name = option.partition("=")[2]
        assert re.search(rf"^ +{name}( |$)", shown.stdout, re.MULTILINE), name
    words = re.search(r"^python train.py (.*)$", (SOURCE / "README.md").read_text(), re.MULTILINE)[1].replace('"', "").split()
    small = ["max_steps=3", "logger=wandb", "trainer.progress=false", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    done = command("train.py", *words, *small, cwd=tmp_path, PYTHONPATH=str(packages))
    assert done.returncode == 0 and done.stderr == ""
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"dropout", "small_outputs", "normalized_gradient"} <= {*result["techniques"]}  # which loggers have as tags


def test_the_mathematics_of_the_package(run, packages):
    from own_techniques.clipping.soft import shorten
    from own_techniques.loss.poly import Poly
    from own_techniques.optimizer.normalized_gradient import NormalizedGradient
    from own_techniques.wrapper.extragradient import LookingAhead

    parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    torch.testing.assert_close(shorten(parameters, 0.5), flat.norm())
    clipped = torch.cat([parameter.grad.flatten() for parameter in parameters])
    torch.testing.assert_close(clipped, flat * 0.5 / (0.5 + flat.norm()))

    z, labels = torch.randn(5, 3), torch.randint(3, (5,))
    p = z.exp() / z.exp().sum(1, keepdim=True)
    right = p[range(5), labels]
    torch.testing.assert_close(Poly(0.7)(z, labels), (-right.log() + 0.7 * (1 - right)).mean())
    one_hot = nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(Poly(0.7)(z, labels), Poly(0.7)(z, one_hot))

    matrix, start = torch.randn(4, 4), torch.randn(4)
    matrix = matrix @ matrix.T

    def stepped(make):
        weight = nn.Parameter(start.clone())
        optimizer = make([weight])

        def closure():
            optimizer.zero_grad()
            loss = weight @ matrix @ weight / 2
            loss.backward()
            return loss

        optimizer.step(closure)
        return weight.detach()

    ahead = stepped(lambda weights: LookingAhead(torch.optim.SGD(weights, 0.1), 0.05))
    torch.testing.assert_close(ahead, start - 0.1 * matrix @ (start - 0.05 * matrix @ start))
    gradient = matrix @ start
    torch.testing.assert_close(stepped(lambda w: NormalizedGradient(w, 0.3)), start - 0.3 * gradient / gradient.norm())


@pytest.mark.slow
def test_the_script_for_python(tmp_path):
    script = EXAMPLES / "from_python.py"
    env = variables(PYTHONPATH=str(EXAMPLES.parent), PYTHONWARNINGS="error:::__main__")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].split()[0] == "test/acc" and len(rows) == 5
    assert all(0.85 < float(re.findall(r"0\.\d{4}", row)[0]) <= 1 for row in rows[1:])
    assert not list(tmp_path.iterdir())
    cells = script.read_text().split("# %%")
    assert len(cells) > 6
