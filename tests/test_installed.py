"""`pip install .` gives the command and the door from Python, in any folder; where others have our names, one line says so."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.command import SMALL, once, variables

ROOT = Path(__file__).parents[1]
COMMAND = "from lightning_recipes.command import main; main()"
DOOR = "from lightning_recipes import SAM; print(SAM.__module__)"


def install(folder):
    """A virtual environment with the project, whose libraries are those of this one."""
    source, home = folder / "source", folder / "venv"
    files = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, text=True)
    source.mkdir()  # a build in the project's folder would leave files there, and find those of an earlier one
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # but not what is named in its .pth files
    words = ["--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps", "--no-build-isolation", str(source)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Its folder `bin`."""
    pytest.importorskip("setuptools", "77")
    return once(tmp_path_factory.getbasetemp(), "installed", install) / "venv" / "bin"


def run(*words, cwd, path="", **environment):
    """An ended process outside of the project's folder, with nothing of it on the path."""
    search = f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"]
    env = {**variables(**environment), "PATH": search}
    if "PYTHONPATH" not in environment:
        env.pop("PYTHONPATH", None)
    return subprocess.run([str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_what_is_installed(installed, tmp_path):
    (site,) = installed.parent.glob("lib/*/site-packages")
    files = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    expected = [
        str(path.relative_to(ROOT))
        for place in ("conf", "plugins", "recipes", "hydra_plugins", "lightning_recipes")
        for path in (ROOT / place).rglob("*")
        if path.suffix in (".py", ".pyi", ".typed", ".yaml", ".html", ".css", ".js") or path.name == "py.typed"
    ]
    expected.append("pytest_lightning_recipes.py")
    assert len(expected) > 200 and set(expected) <= files
    assert not {"benchmarks", "tests", "docs"} & {name.split("/")[0] for name in files}
    code = "import recipes, plugins, lightning_recipes as l; print(recipes.__file__, plugins.__file__, l.SAM.__module__)"
    done = run(installed / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count(str(site)) == 2, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("on_path", [True, False])
def test_what_the_command_prints_can_be_typed(installed, tmp_path, on_path):
    path = str(installed) if on_path else ""
    name = "lightning-recipes" if on_path else str(installed / "lightning-recipes")

    def typed(line):
        words = shlex.split(line)
        assert words[0] == name
        done = run(installed / "lightning-recipes", *words[1:], cwd=tmp_path, path=path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = typed(shlex.join([name, "train", *SMALL]))
    assert "acc" in typed(re.search(r"^next +(.*)$", first, re.MULTILINE)[1])
    (folder,) = {re.search(r"^folder +(.*)$", first, re.MULTILINE)[1]}
    result = json.loads((tmp_path / folder / "result.json").read_text())
    assert result["git_commit"] is None  # what is around an installation may be another project's repository
    assert "acc" in typed(shlex.join([name, "evaluate", folder]))
    assert f"{name} compare" in typed(f"{name} compare --help") and f"{name} train -m" in typed(f"{name} train --help")
    assert typed(f"{name} --version") == typed(f"{name} evaluate --version")
    assert f"to train it for longer: {name} train resume=" in typed(shlex.join([name, "train", f"resume={folder}"]))
    done = run(installed / "lightning-recipes", "train", "-m", "seed=0,1", "resume=nowhere", cwd=tmp_path, path=path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_sweep_starts_its_jobs_and_they_their_ranks(installed, tmp_path):
    words = ("-m", "+wrapper=none,sam", "trainer=ddp", "trainer.devices=2", *SMALL)
    done = run(installed / "lightning-recipes", "train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [json.loads(path.read_text()) for path in tmp_path.glob("multirun/*/*/*/result.json")]
    assert [job["status"] for job in jobs] == ["finished"] * 2 and {job["devices"] for job in jobs} == {2}
    done = run(installed / "lightning-recipes", "compare", cwd=tmp_path)
    assert done.returncode == 0 and "+wrapper=sam" in done.stdout


@pytest.mark.parametrize("code", [COMMAND, DOOR], ids=["command", "door"])
@pytest.mark.parametrize("kind", ["package", "module"])
@pytest.mark.parametrize("name", ["plugins", "recipes"])
def test_a_package_of_our_name_is_told_in_one_line(tmp_path, name, kind, code):
    place = tmp_path / (name if kind == "package" else f"{name}.py")
    if kind == "package":
        place.mkdir()
    (place / "__init__.py" if kind == "package" else place).write_text("raise RuntimeError('imported')")
    done = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: lightning-recipes cannot start: Python finds another {name}, {place}")
    assert f"take {tmp_path} off" in line


@pytest.mark.parametrize("code", [COMMAND, DOOR], ids=["command", "door"])
def test_a_package_that_was_imported_before_is_told_too(tmp_path, code):
    (tmp_path / "plugins.py").touch()
    (tmp_path / "elsewhere").mkdir()
    code = f"import plugins, sys; sys.path.remove({str(tmp_path)!r}); {code}"
    done = run(sys.executable, "-c", code, cwd=tmp_path / "elsewhere", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("code", [COMMAND, DOOR], ids=["command", "door"])
def test_a_package_that_has_written_over_ours_is_told(tmp_path, code):
    for name in ("lightning_recipes", "plugins", "recipes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    for path in (ROOT / "lightning_recipes").glob("*.py*"):
        (tmp_path / "lightning_recipes" / path.name).write_bytes(path.read_bytes())
    # a finder of an editable installation would still find the rest of ours
    code = f"import sys; sys.meta_path[:] = [each for each in sys.meta_path if 'Editable' not in repr(each)]; {code}"
    done = run(sys.executable, "-c", code, cwd=tmp_path / "plugins", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"in {tmp_path} is not ours: another package has written over it" in line


@pytest.mark.slow
def test_a_folder_of_our_name_that_is_no_package_is_none_of_our_business(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("theirs: true")
    done = run(sys.executable, "-c", DOOR, cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 0 and done.stdout == "plugins.wrapper.sam\n"
