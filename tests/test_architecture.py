"""The rules that let a stranger find things: the mirror rule, the two floors, no import circle, a late torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
NO_TECHNIQUES = ("data", "model", "trainer", "callback", "logger", "recipe", "hydra")
TECHNIQUES = sorted(path for path in (ROOT / "conf").glob("*/*.yaml") if path.parent.name not in NO_TECHNIQUES)


def target_of(path):
    node = yaml.safe_load(path.read_text())
    node = node.get(path.stem, node) if "_target_" not in node else node
    return node["_target_"]


@pytest.mark.parametrize("path", TECHNIQUES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_option_plugin_and_test_have_one_name(path):
    group, option = path.parent.name, path.stem
    target = target_of(path)
    plugin = ROOT / "plugins" / group / f"{option}.py"
    if target.startswith("plugins."):
        assert target.startswith(f"plugins.{group}.{option}.")
        assert plugin.exists()
    else:
        assert target.split(".")[0] in ("torch", "lightning", "torchvision", "timm")
    assert (ROOT / "tests" / "plugins" / group / f"test_{option}.py").exists()


def test_every_plugin_has_an_option():
    files = [path for path in (ROOT / "plugins").glob("*/*.py") if not path.name.startswith("_")]
    assert files
    for path in files:
        assert (ROOT / "conf" / path.parent.name / f"{path.stem}.yaml").exists(), path


@pytest.mark.parametrize("group", ["data", "model"])
def test_data_and_models_stand_where_their_config_says(group):
    for path in (ROOT / "conf" / group).glob("*.yaml"):
        module, _, _ = target_of(path).rpartition(".")
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), path


def imports(path):
    """The modules a file imports, and whether it does so when it is loaded (not inside a function)."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) not in inside
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) not in inside


def test_two_floors():
    for path in (ROOT / "plugins").rglob("*.py"):
        for module, _ in imports(path):
            assert module.split(".")[0] not in ("recipes", "hydra", "omegaconf", "yaml", "conf"), f"{path} imports {module}"
    for path in (ROOT / "recipes").rglob("*.py"):
        for module, _ in imports(path):
            if module.split(".")[0] == "plugins":
                assert module in (
                    "plugins.base",
                    "plugins.errors",
                    "plugins.metric",
                    "plugins.parameters",
                    "plugins.shards",
                    "plugins.sites",
                ), f"{path} imports {module}"


def test_no_import_circle():
    files = [path for room in ("plugins", "recipes") for path in (ROOT / room).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    graph = {name: {module for module, early in imports(path) if early and module in names} for name, path in names.items()}

    def visit(name, trail):
        assert name not in trail, " imports ".join([*trail, name])
        for following in graph[name]:
            visit(following, [*trail, name])

    for name in graph:
        visit(name, [])


def test_the_command_line_loads_no_torch():
    code = (
        "import sys, recipes.cli.train, recipes.config.composing, recipes.config.help, recipes.config.catalogue; "
        "sys.exit(bool({'torch', 'lightning', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_technique_files_stay_short():
    files = [path for path in (ROOT / "plugins").glob("*/*.py") if path.name != "__init__.py"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    too_long = {name: length for name, length in lengths.items() if length > 160}
    assert not too_long
