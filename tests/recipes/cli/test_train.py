import json
import subprocess
import sys

import pytest
import yaml

from plugins.errors import RecipeError
from recipes.config.errors import is_mistake
from tests.command import ROOT, SMALL, command, run_folder, variables
from tests.packages import make_entry_points

IMPORTED = """
import sys
sys.argv = ["train.py", *sys.argv[1:]]
sys.path.insert(0, {root!r})
from recipes.cli.train import main
try:
    main()
finally:
    print("loaded:", sorted({{"torch", "lightning", "numpy", "wandb", "sklearn"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["--help", "regularizer"], ["optimizer=adm"], ["optimizer.lr=abc"], ["-m", "optimizer.lr=1,abc"]]
)
def test_help_and_mistakes_import_nothing_heavy(tmp_path, words):
    program = [sys.executable, "-c", IMPORTED.format(root=str(ROOT)), *words]
    done = subprocess.run(program, cwd=tmp_path, env=variables(), capture_output=True, text=True, check=False)
    assert done.returncode == (0 if "--help" in words else 2)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_hydras_own_flags(tmp_path):
    shown = command("train.py", "--cfg", "job", "optimizer=adam", "--package", "optimizer", cwd=tmp_path, forked=True)
    assert shown.returncode == 0 and "torch.optim.Adam" in shown.stdout
    whole = yaml.safe_load(command("train.py", "--cfg", "job", "optimizer=adam", "logger=[]", cwd=tmp_path, forked=True).stdout)
    assert whole["optimizer"]["_target_"] == "torch.optim.Adam" and whole["logger"] == {}
    assert "optimizer: adam" in command(
        "train.py", "--info", "defaults", "optimizer=adam", cwd=tmp_path, forked=True
    ).stdout.replace("/", ": ")
    assert "Hydra" in command("train.py", "--hydra-help", cwd=tmp_path, forked=True).stdout
    assert not list(tmp_path.iterdir())


def test_options_of_installed_packages_and_of_a_further_folder(tmp_path):
    conf = tmp_path / "further" / "recipe"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("# @package _global_\n# Mine.\ndefaults:\n  - override /optimizer: adam\nseed: 5\n")
    package = tmp_path / "packages" / "foreign_recipes" / "conf" / "regularizer"
    package.mkdir(parents=True)
    (package / "foreign.yaml").write_text("# Foreign.\nforeign:\n  _target_: foreign_recipes.Foreign\n  p: 0.5 # share\n")
    entries = {"foreign": "foreign_recipes.conf", "broken": "no_such_package"}
    make_entry_points(tmp_path / "packages", "foreign_recipes", **entries)
    words = ["--config-dir", str(tmp_path / "further"), "recipe=mine", "+regularizer=foreign", "regularizer.foreign.p=0.25"]
    done = command("train.py", *words, "--cfg", "job", cwd=tmp_path, forked=True, PYTHONPATH=str(tmp_path / "packages"))
    config = yaml.safe_load(done.stdout)
    assert config["seed"] == 5 and config["optimizer"]["_target_"] == "torch.optim.Adam"
    assert config["regularizer"]["foreign"]["p"] == 0.25
    assert len(done.stderr.splitlines()) == 1 and "warning: the entry point broken" in done.stderr
    wrong = command("train.py", "+regularizer=foregn", cwd=tmp_path, forked=True, PYTHONPATH=str(tmp_path / "packages"))
    assert "did you mean +regularizer=foreign?" in wrong.stderr
    assert "Foreign." in command("train.py", "--help", cwd=tmp_path, forked=True, PYTHONPATH=str(tmp_path / "packages")).stdout


def test_a_run_is_trained_resumed_and_evaluated(tmp_path):
    assert command("train.py", *SMALL, "+regularizer=l2", "name=a b", cwd=tmp_path, forked=True).returncode == 0
    run = run_folder(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["regularizer"]["l2"]["weight"] == 1e-4 and config["name"] == "a b" and config["resume"] is None
    assert command("train.py", f"resume={run}", "max_steps=4", cwd=tmp_path, forked=True).returncode == 0
    assert run_folder(tmp_path) == run and json.loads((run / "result.json").read_text())["steps"] == 4
    done = command("evaluate.py", str(run), "data.batch_size=8", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "test" in done.stdout
    done = command("evaluate.py", str(run), "data.test=0.5", cwd=tmp_path, forked=True)
    assert done.returncode == 2 and "samples that were trained on" in done.stderr


def test_explaining_leaves_nothing_behind(tmp_path):
    done = command("train.py", *SMALL, "explain=true", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and done.stdout
    assert not list(tmp_path.iterdir())


def test_what_counts_as_a_mistake():
    from plugins.base import Refusal

    assert is_mistake(RecipeError("x")) and is_mistake(Refusal("x")) and not is_mistake(ValueError("x"))


def test_evaluation_keeps_the_split(tmp_path):
    """Another split of the same data would test on samples that were trained on."""
    from recipes.config.changing import expect_same_split

    node = {"_target_": "recipes.data.digits.Digits", "split_seed": 0, "test": 0.2, "validation": 0.1}
    expect_same_split(node, dict(node))
    with pytest.raises(RecipeError, match="data.split_seed cannot be changed"):
        expect_same_split(node, {**node, "split_seed": 1})
    npz = {"_target_": "recipes.data.npz.NpzData", "path": "a.npz", "split_seed": 0}
    expect_same_split(npz, {**npz, "path": "b.npz", "split_seed": 1})
    with pytest.raises(RecipeError, match="data.split_seed"):
        expect_same_split(npz, {**npz, "path": "./a.npz", "split_seed": 1})


def test_a_run_has_what_hydra_gives_it(tmp_path):
    """Its folder, callbacks, environment and log, as any application of Hydra has them; the config is composed once."""
    (tmp_path / "heard.py").write_text(HEARD)
    words = [
        "max_epochs=1",
        "logger=csv",
        "trainer.accelerator=cpu",
        "hydra.run.dir=run-${now:%Y}-${run_id:}",
        "name=${now:%Y}",
    ]
    words += ["+hydra.callbacks.heard._target_=heard.Heard", "+hydra.job.env_set.SAID=hello", "hydra/job_logging=default"]
    done = command("train.py", *words, cwd=tmp_path, forked=True, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    [folder] = tmp_path.glob("run-20*")
    heard = (tmp_path / "heard.txt").read_text().split("\n")
    assert heard[:2] == ["on_run_start RUN train", f"on_job_start {folder} hello"]
    assert heard[2:] == ["on_job_end COMPLETED", "on_run_end", ""]
    assert (folder / "train.log").is_file()
    assert json.loads((folder / "result.json").read_text())["config"]["name"] == folder.name.split("-")[1]


HEARD = """
import os
from hydra.experimental.callback import Callback

class Heard(Callback):
    def tell(self, line):
        with open("heard.txt", "a") as file:
            file.write(line + "\\n")

    def on_run_start(self, config, config_name):
        self.tell(f"on_run_start {config.hydra.mode.name} {config_name}")

    def on_job_start(self, config, task_function):
        self.tell(f"on_job_start {config.hydra.runtime.output_dir} {os.environ['SAID']}")

    def on_job_end(self, config, job_return):
        self.tell(f"on_job_end {job_return.status.name}")

    def on_run_end(self, config, **others):
        self.tell("on_run_end")
"""
