"""`recipes check`: an option that does something wrong is caught by the check for it, and the command tells so."""

import re
import subprocess
import sys

import pytest

from plugins.base import Diverged, RecipeError
from recipes.check import alone, batches, beside, choice, forms, parameters, predictions, processes, real_run, report
from recipes.check.cases import CHECKS, IN_PROCESSES, Case, cases
from recipes.check.harness import digits
from recipes.check.kept import same
from recipes.check.outcome import NotAsked, Wrong
from recipes.check.package import Package, find_package
from recipes.cli.check import main
from recipes.config import own
from recipes.config.errors import of_own_code
from recipes.config.searching import register
from tests.harness import ROOT

WRONG = '''
from dataclasses import replace

import torch
import torch.distributed as dist

from plugins.base import Plugin, Refusal, Stage, declare


class Good(Plugin):
    """Lets the weights decay.

    θ ← (1 − weight) θ.
    """

    stage = Stage.PROJECTION
    on_shards = True

    weight: float = declare.share("share that is taken off each step", default=0.01, off=0.0)

    @torch.no_grad()
    def after_step(self, module, optimizer):
        """Shrink."""
        for parameter in module.model.parameters():
            parameter.mul_(1 - self.weight)


class DrawsForAll(Plugin):
    """Draws from the global generator."""

    stage = Stage.NOISE

    def transform_batch(self, batch, module):
        """Noise."""
        return replace(batch, x=batch.x + 0.1 * torch.rand_like(batch.x))


class DrawsLater(Plugin):
    """Draws from the global generator in another hook."""

    stage = Stage.PENALTY

    def penalty(self, module, batch, outputs):
        """Noise."""
        return torch.rand(()) * outputs[""].square().mean()


class OneDraw(Plugin):
    """Has one draw for all samples."""

    stage = Stage.NOISE

    def transform_batch(self, batch, module):
        """Noise."""
        return replace(batch, x=batch.x + torch.rand(1, generator=module.generator(self.option)))


class WritesInput(Plugin):
    """Writes into what it is given."""

    stage = Stage.NOISE

    def transform_batch(self, batch, module):
        """Dim."""
        batch.x.mul_(0.5)
        return replace(batch)


class WritesLater(Plugin):
    """Writes into what it is given in another hook."""

    stage = Stage.PENALTY

    def penalty(self, module, batch, outputs):
        """Dim."""
        batch.x.mul_(0.5)


class ChangesLabels(Plugin):
    """Changes the true labels."""

    stage = Stage.TARGETS

    def transform_batch(self, batch, module):
        """All one class."""
        none = {"": torch.zeros_like(batch.labels[""])}
        return replace(batch, x=batch.x + 1, labels=none)


class NeverOff(Plugin):
    """Is not exact at strength zero."""

    stage = Stage.PENALTY
    measures_when_off = True
    weight: float = declare.number("strength", default=0.1, least=0, off=0.0)

    def penalty(self, module, batch, outputs):
        """A term that stays."""
        return (self.weight + 0.1) * outputs[""].square().mean()


class Forgets(Plugin):
    """Loses its state on a resume."""

    stage = Stage.PROJECTION

    def __post_init__(self):
        self.count = 0

    @torch.no_grad()
    def after_step(self, module, optimizer):
        """Shrink by more and more."""
        self.count += 1
        for parameter in module.model.parameters():
            parameter.mul_(1 - 0.01 * self.count)


class ForgetsQuietly(Plugin):
    """Loses a state that does nothing before the hundredth step."""

    stage = Stage.PROJECTION

    def __post_init__(self):
        self.count, self._seen = 0, 0

    def after_step(self, module, optimizer):
        """Count, and shrink in the end."""
        self.count, self._seen = self.count + 1, self._seen + 1
        if self.count >= 100:
            next(module.model.parameters()).data.zero_()


class OfNumbers(Plugin):
    """Is for numbers alone, and right."""

    stage = Stage.PENALTY
    weight: float = declare.number("strength", default=0.1, least=0, off=0.0)

    def check(self, selection):
        """Refuse classes."""
        if selection.setting.tasks[0].kind != "regression":
            raise Refusal("regularizer/ofnumbers is for numbers: take loss=mse and data of numbers")

    def penalty(self, module, batch, outputs):
        """A term."""
        return self.weight * outputs[""].square().mean()


class WritesOutputs(Plugin):
    """Writes into what the model has given."""

    stage = Stage.PENALTY

    def penalty(self, module, batch, outputs):
        """Shift."""
        outputs[""].data.add_(1.0)


class WritesPredicted(Plugin):
    """Writes into what it predicts for."""

    stage = Stage.INFERENCE

    def predict(self, module, x):
        """Dim."""
        x.mul_(0.5)
        return {task.name: task.probabilities(module.outputs(x)[task.name]) for task in module.setting.tasks}


class WritesMeasured(Plugin):
    """Writes into what it measures."""

    stage = Stage.DIAGNOSTICS

    def measure(self, module, batch, outputs, split):
        """Dim."""
        return {"confidence": outputs[""].mul_(0.5).amax(1)}


class PredictsLogits(Plugin):
    """Makes probabilities of one class, and none of several labels."""

    stage = Stage.INFERENCE

    def predict(self, module, x):
        """Half of it."""
        found = module.outputs(x)
        kinds = {task.name: task.kind for task in module.setting.tasks}
        return {task: found[task].softmax(1) if kinds[task] == "classification" else found[task] for task in found}


class PredictsHalves(Plugin):
    """Makes half of the probabilities."""

    stage = Stage.INFERENCE

    def predict(self, module, x):
        """Half of them."""
        return {task: found.softmax(1) / 2 for task, found in module.outputs(x).items()}


class Measures(Plugin):
    """Measures something."""

    stage = Stage.DIAGNOSTICS

    def measure(self, module, batch, outputs, split):
        """The size of what is most probable."""
        return {"top_error": outputs[""].amax(1)}


class AnotherWord(Measures):
    """Says of a direction what is none."""

    directions = {"top_error": "maximize"}


class AnotherName(Measures):
    """Says the direction of what it does not measure."""

    directions = {"top": "max"}


class Contrary(Measures):
    """Says of an error that the largest is best."""

    directions = {"top_error": "max"}


class BreaksOnMaps(Plugin):
    """Breaks where there is a class for each place."""

    stage, on_class_maps = Stage.PENALTY, True

    def penalty(self, module, batch, outputs):
        """Ask for what is not there."""
        return {2: 0.0 * outputs[""].sum()}[outputs[""].ndim]


class Redraws(Plugin):
    """Changes the initial weights, and is no init."""

    stage = Stage.LAYERS

    @torch.no_grad()
    def transform_model(self, model):
        """Half of them."""
        for parameter in model.parameters():
            parameter.mul_(0.5)
        return model


class Halves(Plugin):
    """Gives weights of 16 bits in mixed precision."""

    stage = Stage.PROJECTION

    def after_step(self, module, optimizer):
        """Break them there."""
        if module.trainer.precision != "32-true":
            next(module.model.parameters()).data.fill_(float("inf"))


class CountsParts(Plugin):
    """Adds its term once for each part."""

    stage = Stage.PENALTY

    def penalty(self, module, batch, outputs):
        """A sum where a mean belongs."""
        return 0.01 * outputs[""].square().sum()


class OwnRank(Plugin):
    """Goes another way on each rank."""

    stage = Stage.PROJECTION

    @torch.no_grad()
    def after_step(self, module, optimizer):
        """Shrink on one."""
        if dist.is_initialized() and dist.get_rank() == 1:
            next(module.model.parameters()).mul_(0.9)


class OneRaises(Plugin):
    """Fails on one rank."""

    stage = Stage.PROJECTION

    def after_step(self, module, optimizer):
        """Fail."""
        if dist.is_initialized() and dist.get_rank() == 1:
            raise ValueError("on one rank alone")


class OneWaits(Plugin):
    """Waits on one rank for what never comes."""

    stage = Stage.PROJECTION

    def after_step(self, module, optimizer):
        """Wait."""
        if dist.is_initialized() and dist.get_rank() == 1:
            dist.barrier()
            dist.barrier()


class Mute(Plugin):
    """Refuses without a reason."""

    stage = Stage.DIAGNOSTICS

    def check(self, selection):
        """Refuse."""
        if selection.has("clipping/norm"):
            raise Refusal("no")

    def after_step(self, module, optimizer):
        """Do something."""


class Breaks(Plugin):
    """Breaks beside another."""

    stage = Stage.PROJECTION

    def after_step(self, module, optimizer):
        """Break."""
        if any(plugin.option == "l2" for plugin in module.plugins):
            raise ValueError("cannot stand l2")


class Loose(Plugin):
    """Takes whatever is given."""

    stage = Stage.PROJECTION
    weight: float = declare.value("strength", "a number", lambda value: True, default=0.1)
'''
OTHER_WORDS = "# {line}\n{option}:\n  _target_: {target}\n{more}"


@pytest.fixture
def package(install, tmp_path):
    """Installs some of the classes; returns the package that they make."""

    def make(*classes):
        install(WRONG, *classes)
        folder = tmp_path / "packages" / "made_for_a_test" / "conf"
        return Package("made_for_a_test", folder)

    forget = beside.beside.cache_clear
    yield make
    forget()
    register([])
    processes._found.cache_clear()


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("DrawsForAll", batches.own_draws, "global generator"),
        ("DrawsForAll", batches.draws_and_inputs, "transform_batch draws from torch's global generator"),
        ("DrawsLater", batches.draws_and_inputs, "penalty draws from torch's global generator"),
        ("OneDraw", batches.own_draws, "share one draw"),
        ("WritesInput", batches.batch_kept, "writes into the batch"),
        ("WritesInput", batches.draws_and_inputs, "transform_batch writes into x"),
        ("WritesLater", batches.draws_and_inputs, "penalty writes into x"),
        ("ChangesLabels", batches.batch_kept, "changes the true labels"),
        ("NeverOff", alone.strength_zero, "still trains other weights"),
        ("Forgets", alone.resume_and_order, "resumed it trains other weights"),
        ("ForgetsQuietly", alone.resume_and_order, "resumed, `count` is 3 instead of 6 in regularizer/.*: is it in state_dict"),
        ("WritesOutputs", batches.draws_and_inputs, r"penalty writes into outputs\[''\] of the tensors"),
        ("WritesPredicted", batches.draws_and_inputs, "predict writes into x"),
        ("WritesMeasured", batches.draws_and_inputs, r"measure writes into outputs\[''\]"),
        ("PredictsLogits", predictions.probable, "on labels: predict gives numbers from .* and no probabilities"),
        ("PredictsHalves", predictions.probable, "do not sum to 1, but are 0.5 away"),
        ("AnotherWord", real_run.finishes, "the direction of top_error must be one of max, min"),
        ("AnotherName", real_run.finishes, "directions tell of top, which is not measured: there are .*top_error"),
        ("Contrary", real_run.finishes, "top_error is best at its max, and its name says the contrary"),
        ("BreaksOnMaps", forms.other_forms, r"on maps: breaksonmaps.py, line \d+: KeyError: 4"),
        ("Redraws", alone.initial_weights, "other initial weights"),
        ("Halves", alone.bf16, "NaN or infinite"),
        ("CountsParts", alone.accumulation, "in two parts it trains other weights"),
        ("NeverOff", parameters.declared, "has other parameters than NeverOff"),
        ("Loose", parameters.misfits_refused, "is taken, and weight must be a number"),
    ],
)
def test_what_is_wrong_is_caught_by_the_check_for_it(package, tmp_path, name, check, words):
    package(name).open()
    option = f"regularizer/{name.lower()}"
    if check is parameters.misfits_refused:
        with pytest.raises(Wrong, match=words):
            check(choice.option_of(option), choice.plugin_class(option))
        return
    if check is alone.strength_zero:
        file = tmp_path / f"packages/made_for_a_test/conf/regularizer/{name.lower()}.yaml"
        file.write_text(file.read_text() + "  weight: 0.1 # strength, ≥ 0\n")
    before = [split.between(0, 48)[0].clone() for split in digits().splits.values()]
    refused = RecipeError if check is real_run.finishes else Diverged  # told as a failure, too
    with pytest.raises((Wrong, refused), match=words):
        check(option, tmp_path)
    after = [split.between(0, 48)[0] for split in digits().splits.values()]
    assert all(map(same, before, after))  # all other options are tried on these


def test_what_is_for_numbers_alone_passes(package, tmp_path):
    made = package("OfNumbers")
    file = made.folder / "regularizer" / "ofnumbers.yaml"
    file.write_text(file.read_text() + "  weight: 0.1 # strength, ≥ 0\n")
    made.open()
    for number, check in enumerate((alone.strength_zero, real_run.finishes)):
        (tmp_path / str(number)).mkdir()
        check("regularizer/ofnumbers", tmp_path / str(number))


@pytest.fixture
def among(monkeypatch):
    """Has few of our options stand beside those of a package, for the sake of time."""

    def put(made, *ours):
        found = beside.Beside(made, ours)
        monkeypatch.setattr(beside, "beside", lambda package: found)

    return put


def test_a_pair_that_breaks_and_a_refusal_without_a_reason_are_caught(package, among, tmp_path):
    made = package("Mute", "Breaks", "Good")
    among(made, "clipping/norm", "regularizer/l2", "wrapper/sam")
    with pytest.raises(Wrong, match="regularizer/breaks × regularizer/l2 failed: .*cannot stand l2"):
        beside.pairs("regularizer/breaks", tmp_path, made)
    with pytest.raises(Wrong, match="clipping/norm × regularizer/mute is not refused in one line that tells the reason: no"):
        beside.refused("regularizer/mute", tmp_path, made)
    beside.pairs("regularizer/good", tmp_path, made)
    assert beside.refused("regularizer/good", tmp_path, made) == {}


def test_a_list_of_refusals_is_held(package, among, tmp_path):
    made = package("Mute", "Good")
    (made.folder / "refusals.yaml").write_text("clipping/norm × regularizer/good: a reason\n")
    among(made, "clipping/norm", "wrapper/sam")
    with pytest.raises(Wrong, match="clipping/norm × regularizer/good is listed as refused and is not"):
        beside.refused("regularizer/good", tmp_path, made)


@pytest.mark.slow
def test_two_processes_that_part_are_caught(package, tmp_path):
    package("OwnRank", "Good")
    together = ("regularizer/good", "regularizer/ownrank")
    processes.ddp(together[0], tmp_path, together)
    with pytest.raises(Wrong, match="two processes end with different weights"):
        processes.ddp(together[1], tmp_path, together)


@pytest.mark.slow
def test_what_fails_or_waits_in_one_of_two_processes_is_told_by_its_name_and_the_others_are_tried(package, tmp_path):
    package("OneRaises", "OneWaits", "Good")
    names = ["regularizer/oneraises", "regularizer/onewaits", "regularizer/good"]
    found = processes.two_processes(names, "ddp", limit=20.0)
    assert "ValueError: on one rank alone" in found[names[0]]["error"]
    assert "error" in found[names[1]]
    processes.equals_two_parts((names[2],), tmp_path, found[names[2]])


def test_the_command_tells_all_and_fails(package, capsys, monkeypatch):
    made = package("NeverOff", "Good")
    monkeypatch.chdir(made.folder.parents[1])
    only = [word for check in ("strength zero", "bf16", "file", "accumulation") for word in ("--only", check)]
    with pytest.raises(SystemExit) as ended:
        main(["made_for_a_test", *only])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert len(re.findall(r"^\[\d/8\] regularizer/\w+ [\w ]+ \(\d+\.\d s\) (ok|FAILED|–)", err, re.MULTILINE)) == 8
    assert re.search(r"^option +file +strength zero +bf16 +accumulation$", out, re.MULTILINE)
    assert re.search(r"^regularizer/neveroff, strength zero: off of regularizer/neveroff names parameters", out, re.MULTILINE)
    assert out.endswith("2 options, 8 checks, 2 of them failed\n")
    main(["made-for-a-test", "--only", "good", "--only", "bf16"])
    assert "1 options, 1 checks, 0 of them failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which package"),
        (
            ["no_such_package"],
            "there is no package no_such_package with an entry point lightning_recipes, and no such folder; installed",
        ),
        (["mad_for_a_test"], "did you mean made_for_a_test?"),
        (["made_for_a_test", "--only", "bf17"], "did you mean --only bf16?"),
        (["made_for_a_test", "--quick", "--only", "shards"], "--only shards is left out by --quick"),
        (["made_for_a_test", "--quik"], "did you mean --quick?"),
        (["made_for_a_test", "another"], "there is no use for another"),
        (["."], "brings no option to check"),
    ],
)
def test_mistakes_are_one_line(package, capsys, tmp_path, monkeypatch, words, says):
    package("Good")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(SystemExit) as ended:
        main(words)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1 and says in err


def test_a_folder_of_config_files_will_do(tmp_path):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "asgd.yaml").write_text(
        "# Averaged SGD.\n_target_: torch.optim.ASGD\nlr: 0.01 # learning rate, ≥ 0\n"
    )
    made = find_package(str(tmp_path))
    assert made.options == ["optimizer/asgd"]
    assert {case.check for case in cases(made)} == set(CHECKS)
    assert {case.check for case in cases(made, quick=True)} == set(CHECKS) - set(IN_PROCESSES)


def test_the_classes_of_a_folder_may_lie_beside_the_command(tmp_path, monkeypatch, capsys):
    """Its name was typed, as that of `--config-dir`."""
    (tmp_path / "classes_of_a_folder.py").write_text(WRONG)
    (tmp_path / "configs" / "regularizer").mkdir(parents=True)
    line = OTHER_WORDS.format(
        line="Decay.", option="mild", target="classes_of_a_folder.Good", more="  weight: 0.01 # share, in [0, 1]\n"
    )
    (tmp_path / "configs" / "regularizer" / "mild.yaml").write_text(line)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "trusted", set())
    monkeypatch.setattr(sys, "path", [*sys.path])
    main(["configs", "--only", "bf16"])
    assert "1 options, 1 checks, 0 of them failed" in capsys.readouterr().out
    sys.modules.pop("classes_of_a_folder", None)
    register([])
    choice.catalogue.cache_clear()


def test_what_has_no_outcome_is_told(package, tmp_path):
    made = package("Good")
    for case in cases(made, only=["own draws", "other data"]):
        with pytest.raises(NotAsked):
            case.run(tmp_path)
        assert report.outcome_of(case).status == report.NOT_ASKED
    assert report.table([]).endswith("0 options, 0 checks, 0 of them failed")
    with pytest.raises(RecipeError):
        find_package("nothing of that name")


def test_an_error_is_told_with_its_kind_and_the_line_of_the_package(package, tmp_path):
    package("Good")
    installed = tmp_path / "site-packages" / "mine"
    code = compile("\n{}['x']", installed / "part.py", "exec")

    def fails(folder):
        exec(code)

    with pytest.raises(KeyError) as raised:
        fails(tmp_path)
    assert of_own_code(raised.value, installed) == "part.py, line 2: KeyError: 'x'"
    text = report.outcome_of(Case("regularizer/good", "bf16", fails)).text
    assert re.fullmatch(r"test_check\.py, line \d+: KeyError: 'x'", text)


@pytest.mark.slow
def test_pytest_has_each_check_as_a_test(package, tmp_path):
    made = package("NeverOff", "Good")
    path = f"{ROOT}:{made.folder.parents[1]}"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "test_own.py").write_text("def test_own():\n    pass\n")
    (tmp_path / "own" / "pytest.ini").write_text("[pytest]\nrecipes_check = made_for_a_test\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--recipes-quick",
        "-v",
    ]
    wanted = ["-k", "test_own or bf16 or strength or other-data"]
    from tests.command import variables

    done = subprocess.run(
        [*command, *wanted], cwd=tmp_path / "own", env=variables(PYTHONPATH=path), capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "made_for_a_test::regularizer/good-bf16 PASSED" in done.stdout
    assert "made_for_a_test::regularizer/good-other-data SKIPPED" in done.stdout
    assert (
        "regularizer/neveroff, strength zero: off of regularizer/neveroff names" in done.stdout
        and "Traceback" not in done.stdout
    )
    assert "test_own.py::test_own PASSED" in done.stdout
    (tmp_path / "bare").mkdir()
    for name, told in (("nothing", "there is no package nothing"), ("bare", "bare brings no option to check")):
        listed = subprocess.run(
            [*command[:-2], "--recipes-check", name],
            cwd=tmp_path,
            env=variables(PYTHONPATH=path),
            capture_output=True,
            text=True,
        )
        assert listed.returncode == 4 and f"ERROR: {told}" in listed.stderr and "INTERNALERROR" not in listed.stdout


def test_the_plugin_imports_nothing_of_ours_before_it_is_used():
    """pytest loads it in every project of an environment."""
    text = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\nlightning-recipes = "pytest_lightning_recipes"' in text
    code = (
        "import sys, pytest_lightning_recipes; "
        "found = {name.partition('.')[0] for name in sys.modules}; "
        "sys.exit(bool(found & {'torch', 'recipes', 'plugins', 'hydra', 'lightning_recipes'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
