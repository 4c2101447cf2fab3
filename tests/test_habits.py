"""Tools of development: commands of the Makefile, hooks, the look at vulnerabilities, the lowest versions."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.audit import audit
from tests.lowest_versions import TESTS, lowest, read, requirements

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
MODULES = re.compile(r"-m (ruff|mypy|pytest|pip|venv|benchmarks\.\w+)\b")


def made(target):
    """The commands that a target would run."""
    return subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_target_of_the_makefile_names_what_there_is():
    targets = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    assert sorted(targets) == sorted(phony)
    for target in targets:
        commands = made(target)
        for name in re.findall(r"-m (benchmarks\.\w+)", commands):
            assert (ROOT / f"{name.replace('.', '/')}.py").exists()
        for path in re.findall(r"\b(tests/[\w/]+\.py)", commands):
            assert (ROOT / path).exists(), path
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == targets
    told = re.findall(r"`make ([a-z-]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert set(told) <= set(targets) and len(told) > 4


def test_hooks_need_nothing_but_what_is_installed():
    hooks = [hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        for path in re.findall(r"\btests/\S+\.py", hook["entry"]):
            assert (ROOT / path).exists()
    mirror = next(hook for hook in hooks if hook["id"] == "conf-plugins")
    for path in ("conf/regularizer/new.yaml", "plugins/regularizer/new.py", "tests/plugins/regularizer/test_new.py"):
        assert re.search(mirror["files"], path)


@pytest.mark.slow
def test_hooks_run(tmp_path):
    """Without a network: all is well in a clone; then what is formatted wrongly is told, and an option without a plugin too."""
    pytest.importorskip("pre_commit")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", "outputs", "multirun", ".[!m]*_cache"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*git[1:], "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=clone, check=True)
    hooks = [sys.executable, "-m", "pre_commit", "run"]
    activated = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PRE_COMMIT_HOME": str(tmp_path),
    }
    everything = subprocess.run([*hooks, "-a"], cwd=clone, env=activated, capture_output=True, text=True)
    assert everything.returncode == 0 and everything.stdout.count("Passed") == 4, everything.stdout
    (clone / "conf" / "regularizer" / "new.yaml").write_text("# New.\nnew:\n  _target_: plugins.regularizer.new.New\n")
    (clone / "plugins" / "wrong.py").write_text("x = 'a'\nimport os\n")
    subprocess.run(["git", "add", "-A"], cwd=clone, check=True)
    for hook in ("ruff-check", "ruff-format", "conf-plugins"):
        done = subprocess.run([*hooks, hook], cwd=clone, env=activated, capture_output=True, text=True)
        assert done.returncode == 1 and "Failed" in done.stdout, done.stdout + done.stderr


def package(name, *found):
    return {
        "name": name,
        "version": "1.0",
        "vulns": [{"id": identity, "fix_versions": fixed} for identity, fixed in found],
    }


def skipped(name):
    return {"name": name, "skip_reason": "Dependency not found"}


def test_a_known_vulnerability_is_a_failure():
    reports = {"pypi": {"dependencies": [package("a"), package("b", ("CVE-1", ["1.1"]), ("CVE-2", [])), skipped("c")]}}
    code, lines = audit(reports.__getitem__)
    assert code == 1
    assert lines[:2] == ["b 1.0: CVE-1, fixed in 1.1", "b 1.0: CVE-2, fixed in no version yet"]
    assert lines[2] == "2 known vulnerabilities in 2 of 3 packages, by pypi"


def test_no_known_vulnerability_is_said_only_of_packages_that_were_known():
    code, lines = audit({"pypi": {"dependencies": [package("a"), skipped("b")]}}.__getitem__)
    assert (code, lines) == (0, ["0 known vulnerabilities in 1 of 2 packages, by pypi"])


def test_a_service_that_does_not_answer_is_told_and_the_next_is_asked():
    silent = {"dependencies": [skipped("a"), skipped("b")]}
    code, lines = audit({"pypi": silent, "osv": {"dependencies": [package("a", ("CVE-1", []))]}}.__getitem__)
    assert code == 1 and "pypi knows none of 2 packages" in lines[0] and "CVE-1" in lines[1]
    code, lines = audit({"pypi": "no route", "osv": silent}.__getitem__)
    assert code == 0 and lines[0] == "pypi cannot be reached: no route"
    assert lines[-1] == "no known vulnerability was looked for: nothing answers here"


def test_the_lowest_version_of_each_requirement():
    assert list(lowest(["a>=1.2,<2", "b[extra]>=0.3", 'c>=1; python_version < "3.9"'])) == [
        "a==1.2",
        "b==0.3",
        'c==1 ; python_version < "3.9"',
    ]
    for bad in ("a", "a<2", "a!=1"):
        with pytest.raises(ValueError, match="has no lower bound: write a>=VERSION"):
            list(lowest([bad]))


def test_every_requirement_of_the_project_has_a_lower_bound():
    project = read()
    found = list(lowest(requirements(project)))
    assert len(found) > len(project["project"]["dependencies"]) > 10
    for extra in project["project"]["optional-dependencies"].values():
        for text in extra:
            if not re.match(r"lightning-recipes\[|sqlalchemy<", text):
                assert list(lowest([text]))
    for path in TESTS:
        assert (ROOT / path).exists()
