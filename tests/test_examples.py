"""The examples do what they are shown to do: a script for the techniques from Python, and an installed package with some of its own."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from plugins.base import Plugin, RecipeError, Setting, Stage, Task
from recipes.compare.present import present
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.composing import check, compose, finish
from recipes.config.searching import register
from recipes.run.train import train
from tests.command import command, once, variables
from tests.harness import TRAINED
from tests.recipes.engine.weighing import EQUAL, data, numbers
from tests.recipes.engine.weighing import train as train_plain
from tests.sparsely import sparsely

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCE = EXAMPLES / "own_techniques"
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in SOURCE.glob("own_techniques/conf/*/*.yaml"))
BESIDE = {  # another technique, of ours, for each
    "regularizer=small_outputs": "regularizer=[small_outputs,dropout]",
    "augmentation=dimming": "augmentation=[dimming,mixup]",
    "diagnostics=weight_size": "diagnostics=[weight_size,gradient_stats]",
    "guard=skip_spikes": "guard=[skip_spikes,nan_rollback]",
    "metric=margin": "metric=[margin,f1]",
    "curriculum=fading_in": "curriculum=[fading_in,layer_freezing]",
}
NEEDS = {"distillation=hard": [f"distillation.teacher={TRAINED}"]}
OFF = {
    "regularizer=small_outputs": "regularizer.small_outputs.weight=0",
    "augmentation=dimming": "augmentation.dimming.strength=0",
    "adversarial=random_corner": "adversarial.eps=0",
    "clipping=soft": "clipping.max_norm=.inf",
    "wrapper=extragradient": "wrapper.extragradient.step_size=0",
    "scheduler=inverse_time": "scheduler.decay=0",
    "stopping=good_enough": "stopping.loss=0",
    "diagnostics=weight_size": "diagnostics.weight_size.every_n_steps=1",
    "distillation=hard": "distillation.weight=0",
    "curriculum=fading_in": "curriculum.fading_in.start=1",
}
NO_GROUPS_OF_OPTIONS = ("trainer", "logger", "recipe", "callback")  # settings, names for several options, and Lightning's own


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


def test_there_is_an_option_of_each_kind():
    groups = {option.partition("=")[0] for option in OPTIONS}
    assert groups == set(Catalogue().groups) - set(NO_GROUPS_OF_OPTIONS)


def test_every_option_has_a_class_and_a_group_of_ours():
    for option in OPTIONS:
        group, _, name = option.partition("=")
        text = (SOURCE / "own_techniques" / "conf" / group / f"{name}.yaml").read_text()
        node = yaml.safe_load(text)
        target = (node.get(name) or node)["_target_"]
        assert target.startswith(f"own_techniques.{group}.{name}.")
        assert (SOURCE / (target.rpartition(".")[0].replace(".", "/") + ".py")).exists()
        assert group in Catalogue().groups and name not in Catalogue().groups[group], "ours would take its place"
        assert re.search(rf"^\| `\+?{option}` \|", (SOURCE / "README.md").read_text(), re.MULTILINE), "the README names all"


@pytest.mark.parametrize("option", sparsely(OPTIONS))
def test_an_option_of_the_package_trains_alone_and_beside_ours(option, run):
    catalogue = Catalogue(installed_folders())
    group, _, name = option.partition("=")
    needed = NEEDS.get(option, [])
    alone = run("alone", added(option, catalogue), *needed)
    beside = ["+wrapper=sam"] if group == "optimizer" else ["optimizer=adam", "+regularizer=l2"]
    beside = [word for word in beside if not word.startswith(f"+{group}=")]
    pair = run("pair", added(BESIDE.get(option, option), catalogue), *needed, *beside)
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
    off = run("off", added(option, Catalogue(installed_folders())), *NEEDS.get(option, []), OFF[option])
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
    shown = command("train.py", "--help", cwd=tmp_path, forked=True, PYTHONPATH=str(packages))
    for option in OPTIONS:
        name = option.partition("=")[2]
        assert re.search(rf"^ +{name}( |$)", shown.stdout, re.MULTILINE), name
    words = re.search(r"^python train.py (.*)$", (SOURCE / "README.md").read_text(), re.MULTILINE)[1].replace('"', "").split()
    small = ["max_steps=3", "logger=wandb", "trainer.progress=false", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    done = command("train.py", *words, *small, cwd=tmp_path, forked=True, PYTHONPATH=str(packages))
    assert done.returncode == 0 and done.stderr == ""
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"dropout", "small_outputs", "normalized_gradient"} <= {*result["techniques"]}  # which loggers have as tags


@pytest.mark.slow
def test_the_installed_check_proves_the_package(packages, tmp_path_factory, tmp_path):
    """Neither the tests nor this folder are at hand: all that the command needs is installed."""
    place = once(tmp_path_factory.getbasetemp(), "project_alone", project)
    env = variables(PYTHONPATH=f"{place}:{packages}", PYTHONSAFEPATH="1")
    done = subprocess.run(
        [sys.executable, "-m", "recipes", "check", "own_techniques"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if re.match(r"\w+/\w+ ", line)}
    assert {option.replace("=", "/") for option in OPTIONS} <= set(rows)
    assert "0 of them failed" in done.stdout and "FAILED" not in done.stdout
    assert not list(tmp_path.iterdir())


def project(folder):
    """Install the project, without what it needs, into a folder."""
    for name in ("lightning_recipes", "plugins", "recipes", "conf", "hydra_plugins"):
        shutil.copytree(EXAMPLES.parent / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "pytest_lightning_recipes.py"):
        shutil.copy(EXAMPLES.parent / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder, folder / "source"], check=True, env=variables())


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
    torch.testing.assert_close(Poly(0.7)(z, labels), -right.log() + 0.7 * (1 - right))
    assert torch.equal(Poly(0.0)(z, labels), nn.functional.cross_entropy(z, labels, reduction="none"))
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


def test_the_mathematics_of_what_weighs_samples_and_weights(run, packages):
    from own_techniques.curriculum.fading_in import faded
    from own_techniques.metric.margin import MeanMargin
    from own_techniques.multitask.auxiliary import Auxiliary
    from own_techniques.normalization.pixel import PixelNorm
    from own_techniques.preprocessing.unit_contrast import Contrast
    from own_techniques.sampling.bootstrap import Bootstrap

    x = torch.randn(5, 3, 4, 4)
    expected = x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()
    torch.testing.assert_close(PixelNorm(1e-8)(x), expected)
    prepared = Contrast(nn.Identity(), 1e-3)(x)
    torch.testing.assert_close(prepared.flatten(1).mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(prepared.flatten(1).var(1, correction=0), torch.ones(5))
    assert torch.equal(Contrast(nn.Identity(), 1e-3)(torch.ones(2, 7)), torch.zeros(2, 7)), "no contrast to divide by"
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(faded(x, 0.3), 0.3 * x + 0.7 * mean)

    p, labels = torch.rand(20, 4).softmax(1), torch.randint(4, (20,))
    metric = MeanMargin()
    for start in (0, 8):
        metric.update(p[start : start + 8 or None], labels[start : start + 8 or None])
    rows = zip(p[:16].tolist(), labels[:16].tolist(), strict=True)
    margins = [row[label] - max(value for place, value in enumerate(row) if place != label) for row, label in rows]
    assert float(metric.compute()) == pytest.approx(sum(margins) / 16)

    plugin = Auxiliary(0.25)
    assert plugin.combine({"a": torch.tensor(2.0), "b": torch.tensor(4.0), "c": torch.tensor(8.0)}, None) == 5.0

    sampling = Bootstrap()
    sampling.prepare(Setting((3,), (Task("", "classification", 2),), 7))
    first, second = (sampling.order({"": labels}, epoch, torch.Generator().manual_seed(epoch)) for epoch in (0, 1))
    assert torch.equal(first.sort()[0], second.sort()[0]) and not torch.equal(first, second)
    assert len(first) == 20 and len(first.unique()) < 20


def test_the_average_of_the_package_counts_later_steps_more(run, packages):
    """Running statistics along: a mean of weights has those of no weights that there were."""
    from own_techniques.averaging.polynomial import Polynomial

    model = nn.BatchNorm1d(2)
    module = SimpleNamespace(model=model)
    plugin, seen = Polynomial(3.0), []
    for _ in range(6):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2))
            model.running_mean.copy_(torch.randn(2))
        seen.append((model.weight.detach().clone(), model.running_mean.clone()))
        plugin.after_step(module, None)
    shares = [4 / (step + 3) for step in range(1, 7)]  # the weight of step t in the end: s_t · Π (1 − s_later)
    parts = [share * math.prod(1 - later for later in shares[place + 1 :]) for place, share in enumerate(shares)]
    assert sum(parts) == pytest.approx(1) and parts == sorted(parts)
    expected = [sum(part * both[which] for part, both in zip(parts, seen, strict=True)) for which in (0, 1)]
    with plugin.evaluation_weights(module):
        torch.testing.assert_close([model.weight.detach(), model.running_mean], expected)
    assert torch.equal(model.weight, seen[-1][0]) and torch.equal(model.running_mean, seen[-1][1])


def test_the_average_of_the_package_ends_with_its_time(run):
    bare = run("bare")
    over = run("over", "+averaging=polynomial", "averaging.when=[0,0.5]")
    assert {name: over["metrics"][name] for name in bare["metrics"]} == bare["metrics"]


def test_the_prediction_of_the_package_is_of_probabilities_whatever_is_predicted(run, packages):
    from own_techniques.inference.mirrored import Mirrored

    tasks = Task("class", "classification", 3), Task("labels", "multilabel", 3), Task("numbers", "regression", 3)
    module = SimpleNamespace(
        setting=Setting((1, 4, 3), tasks), outputs=lambda x: {task.name: x[:, 0].sum(1) + x[:, 0, 0, :1] for task in tasks}
    )
    x = torch.randn(5, 1, 4, 3)
    first, second = (module.outputs(view)["class"].double() for view in (x, x.flip(3)))
    exponents = [z.exp() for z in (first, second)]
    expected = {
        "class": sum(each / each.sum(1, keepdim=True) for each in exponents) / 2,
        "labels": sum(each / (1 + each) for each in exponents) / 2,
        "numbers": (first + second) / 2,
    }
    found = {name: value.double() for name, value in Mirrored().predict(module, x).items()}
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["+wrapper=extragradient", "trainer.precision=16-mixed"], "wrapper/extragradient cannot use scaled gradients"),
        (["+metric=margin", "loss=mse"], "metric/margin makes probabilities of logits, which MSE does not train"),
    ],
)
def test_what_the_package_cannot_do_is_refused(run, words, says):
    with pytest.raises(RecipeError, match=says):
        run("refused", *words)


def test_the_distillation_of_the_package_weighs_samples(run, packages):
    from own_techniques.distillation.hard import HardDistillation

    x, y = data("plain")
    first = x[:, 1] > 0

    class Teacher(nn.Module):
        def outputs(self, x):
            return {"": x[:, :3]}

    class Half(Plugin):
        stage, group, option = Stage.TARGETS, "test", "half"

        def transform_batch(self, batch, module):
            return replace(batch, weight={"": (batch.x[:, 1] > 0).float()})

    class Taught(HardDistillation):
        group, option = "distillation", "hard"

        def __post_init__(self):
            self._model = Teacher()

    weighted = numbers(train_plain("by_task", x, y, 2, [Taught("somewhere", 0.7), Half()]))
    torch.testing.assert_close(
        weighted, numbers(train_plain("by_task", x[first], y[first], 1, [Taught("somewhere", 0.7)])), **EQUAL
    )


def test_the_guard_of_the_package_leaves_out_what_is_far_too_long(run, packages):
    from own_techniques.guard.skip_spikes import SkipSpikes

    plugin, parameter = SkipSpikes(10.0), nn.Parameter(torch.zeros(3))
    for size in [1.0] * 12 + [9.0, 100.0, float("nan"), 2.0]:
        parameter.grad = torch.full((3,), size)
        plugin.transform_gradient(None, [parameter])
        left_out = size != size or size > 50
        assert torch.equal(parameter.grad, torch.zeros(3) if left_out else torch.full((3,), size))
    assert plugin.count == 14


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
