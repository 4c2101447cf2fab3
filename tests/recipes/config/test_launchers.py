"""Hydra's launchers of ours are there for our commands, and in no other application of the same environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import command

ROOT = Path(__file__).parents[3]
FOREIGN = """
import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

@hydra.main(version_base=None)
def app(config):
    print("found", *sorted(ConfigStore.instance().list("hydra/launcher")))
    print("provider", *(n.provider for n in ConfigStore.instance().repo["hydra"]["launcher"].values()))
    print("classes", *(c.__name__ for c in Plugins.instance().discover(Launcher)))

app()
"""


def foreign(folder, *words, ours=True):
    """What the application of another project prints, with ours in its environment or without."""
    (folder / "app.py").write_text(FOREIGN)
    hidden = "" if ours else "import sys; sys.modules['hydra_plugins.lightning_recipes'] = None; "
    run = f"{hidden}import runpy, sys; sys.argv[0] = 'app.py'; runpy.run_path('app.py', run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT if ours else ''}"}
    done = subprocess.run([sys.executable, "-c", run, *words], cwd=folder, env=environment, capture_output=True, text=True)
    return done


@pytest.fixture
def theirs(tmp_path):
    """A package with a launcher called ray, as hydra-ray-launcher has."""
    package = tmp_path / "hydra_plugins" / "hydra_ray_launcher"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "ray_launcher.py").write_text(
        "from hydra.core.config_store import ConfigStore\n"
        "from hydra._internal.core_plugins.basic_launcher import BasicLauncher\n"
        "class TheirLauncher(BasicLauncher):\n"
        "    def launch(self, *args, **kwargs):\n"
        "        print('theirs launches')\n"
        "        return super().launch(*args, **kwargs)\n"
        "target = 'hydra_plugins.hydra_ray_launcher.ray_launcher.TheirLauncher'\n"
        "ConfigStore.instance().store(group='hydra/launcher', name='ray', node={'_target_': target}, provider='theirs')\n"
    )
    return tmp_path


def test_an_application_of_others_has_the_launchers_that_it_had(theirs):
    done = foreign(theirs)
    assert done.returncode == 0, done.stderr
    found, provider, classes = (line.split()[1:] for line in done.stdout.splitlines())
    assert "ray.yaml" in found and not {"processes.yaml", "slurm.yaml"} & set(found)
    assert "lightning_recipes" not in provider and "theirs" in provider
    assert {"TheirLauncher", "ProcessesLauncher"} <= set(classes)  # ours is installed, and was looked at
    done = foreign(theirs, "-m", "hydra/launcher=ray", "+a=1,2")
    assert done.returncode == 0 and "theirs launches" in done.stdout
    done = foreign(theirs, "-m", "hydra/launcher=processes", "+a=1,2")
    assert done.returncode and "Could not find 'hydra/launcher/processes'" in done.stderr


@pytest.mark.parametrize("name", ["processes", "slurm", "ray"])
def test_our_own_command_has_ours(theirs, name):
    target = {"processes": "ProcessesLauncher", "slurm": "SlurmLauncher", "ray": "RayLauncher"}[name]
    words = (f"hydra/launcher={name}", "--cfg", "hydra", "--package", "hydra.launcher")
    done = command("train.py", *words, cwd=theirs, PYTHONPATH=str(theirs))
    assert f"_target_: hydra_plugins.lightning_recipes.{target}" in done.stdout


def test_hydras_own_help_and_completion_know_them(tmp_path):
    done = command("train.py", "--hydra-help", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "slurm" in done.stdout
