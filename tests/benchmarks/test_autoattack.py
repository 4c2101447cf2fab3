import re
import subprocess
import sys

import pytest
import torch

from benchmarks import autoattack
from plugins.adversarial.fgsm import FGSM
from plugins.base import RecipeError
from tests.command import ROOT, command


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that has been attacked in training, and a plain one."""
    place = tmp_path_factory.mktemp("runs")
    small = ("model=mlp", "model.hidden=[32]", "max_epochs=3", "optimizer=adam", "logger=[]", "trainer.accelerator=cpu")
    for name, words in {"robust": ("+adversarial=fgsm", "adversarial.eps=0.1"), "plain": ()}.items():
        done = command("train.py", *small, *words, f"hydra.run.dir={place / name}", cwd=place, forked=True)
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def installed():
    pytest.importorskip("pyautoattack")


def accuracies(printed):
    """Of each run by name: its size of ε, samples, and accuracies without an attack, under PGD and under AutoAttack."""
    rows = re.findall(r"/(\w+)  +\w+ ([\d.]+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)", printed)
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_the_stronger_the_attack_the_fewer_samples_are_right(runs, capsys):
    words = [str(runs / "robust"), str(runs / "plain"), "--eps", "0.15", "--samples", "32"]
    autoattack.main([*words, "--steps", "5", "--device", "cpu"])
    found = accuracies(capsys.readouterr().out)
    for eps, samples, clean, pgd, ensemble in found.values():
        assert (eps, samples) == (0.15, 32)
        assert 1 >= clean > pgd >= ensemble >= 0
    assert found["robust"][4] > found["plain"][4]


def test_a_wider_range_is_the_same_attack_in_its_units(runs):
    """Inputs in [0, 1] of a range of twice the width lie in its middle; half of ε of it is ε in raw units."""
    (member,) = autoattack.load(runs / "robust").members
    x, y = autoattack.samples_of(member, 40)
    options = autoattack.parse([str(runs / "robust"), "--steps", "3", "--alpha", "0.05"])
    found = []
    for low, high in ((-100.0, 100.0), (-150.0, 250.0)):  # so wide that no perturbation meets an end
        model = autoattack.Attacked(member, low, high)
        torch.testing.assert_close(model(model.unit(x)), member.module.outputs(x)[""], rtol=1e-3, atol=1e-3)
        found.append(autoattack.under_pgd(model, model.unit(x), y, options, 0.1 / (high - low), "linf"))
    assert (found[0] == found[1]).float().mean() > 0.9 and found[0].any()


def test_pgd_is_that_of_evaluations(runs):
    """By as many steps of the same length from as many starts, the same accuracy within a few samples."""
    (member,) = autoattack.load(runs / "robust").members
    x, y = autoattack.samples_of(member, 200)
    model = autoattack.Attacked(member, 0.0, 1.0)
    options = autoattack.parse([str(runs / "robust"), "--steps", "10", "--alpha", "0.025"])
    robust = autoattack.under_pgd(model, x, y, options, 0.1, "linf")
    (plugin,) = (plugin for plugin in member.plugins if isinstance(plugin, FGSM))
    hits, _ = plugin.robust(member.module, x, {"": y}, 0.1, 10, "test", range(len(x)))
    assert (
        abs(float(robust.float().mean() - hits.float().mean())) <= 0.02
        and hits.float().mean() < model.right(x, y, 250).float().mean()
    )


def test_what_lacks_or_does_not_fit_is_one_line(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(RecipeError, match=r'needs a further package: pip install -e "\.\[attacks\]"$'):
        autoattack.main([str(runs / "robust")])
    x = torch.rand(4, 1, 8, 8)
    assert autoattack.limits(None, x) == (0, 1) and autoattack.limits([-1.0, 2.0], x) == (-1, 2)
    with pytest.raises(RecipeError, match=r"outside of the range \[0.*\]: type --range LO HI"):
        autoattack.limits(None, x - 0.5)
    for given in ([None, None], [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]):
        with pytest.raises(RecipeError, match="needs one range"):
            autoattack.limits(given, x)
    with pytest.raises(RecipeError, match=r"plain was trained without an attack, .*: type --eps NUMBER"):
        autoattack.attacked(str(runs / "plain"), autoattack.parse(["plain"]), torch.device("cpu"))


def test_a_mistake_is_told_in_one_line(tmp_path):
    words = [sys.executable, "-m", "benchmarks.autoattack", str(tmp_path / "nowhere")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and re.fullmatch(r"error: .*\n", done.stderr)
