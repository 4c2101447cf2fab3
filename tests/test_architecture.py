"""The rules that let a stranger find things: the mirror rule, floors, no import circle, a late torch, short files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recipes.config import run_files

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


FLOORS = (  # from the ground up: a file imports from its own floor and from those below
    ("plugins",),
    ("recipes.config",),
    ("recipes.store",),
    ("recipes.launch",),
    ("recipes.data", "recipes.models"),
    ("recipes.engine",),
    ("recipes.compare",),
    ("recipes.run",),
    ("recipes.check",),
    ("recipes.cli", "hydra_plugins"),
    ("lightning_recipes",),
)
OF_CHECKS = ("recipes.check.package", "recipes.check.cases")  # what is loaded before a check runs
WITHOUT_TORCH = ("recipes.config", "recipes.store", "recipes.launch", "recipes.compare", "recipes.cli", *OF_CHECKS)
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ("plugins", "recipes", "hydra_plugins", "lightning_recipes")
    for path in sorted((ROOT / room).rglob("*.py"))
}
LONGEST = 300  # lines of a file


def imports(path):
    """The modules a file imports, wherever it does so: in functions and for types, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{name.name}" for name in node.names}
            yield from inner & FILES.keys() or {node.module}


def floor_of(module):
    """The number of the floor on which a module stands."""
    return next(
        (number for number, rooms in enumerate(FLOORS) for room in rooms if f"{module}.".startswith(f"{room}.")),
        None,
    )


def test_every_file_stands_on_a_floor():
    assert {name for name in FILES if floor_of(name) is None} == {"recipes", "recipes.__main__"}


def test_nothing_imports_upwards():
    for name, path in FILES.items():
        for module in imports(path) if floor_of(name) is not None else ():
            there = floor_of(module)
            assert there is None or there <= floor_of(name), f"{name} imports {module}, which stands above"


def test_a_new_option_is_known_to_no_other_file():
    """Techniques import no Hydra and no option of their own kind but the shared files; the engine imports none of them."""
    for name, path in FILES.items():
        for module in imports(path):
            if name.startswith("plugins"):
                assert module.split(".")[0] not in ("recipes", "hydra", "omegaconf", "yaml", "conf"), f"{name} imports {module}"
            elif module.startswith("plugins."):
                assert module.count(".") == 1, f"{name} imports {module}"


def test_no_import_circle():
    graph = {name: sorted(set(imports(path)) & FILES.keys()) for name, path in FILES.items()}
    done = set()

    def visit(name, trail):
        assert name not in trail, " imports ".join([*trail, name])
        if name not in done:
            for following in graph[name]:
                visit(following, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_folders_without_torch():
    names = [name for name in FILES if name.startswith(WITHOUT_TORCH)]
    assert len(names) > 50
    code = (
        "import sys, importlib\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    found = {'torch', 'lightning', 'torchvision', 'torchmetrics'} & set(sys.modules)\n"
        "    assert not found, f'{name} imports {found}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_loads_no_numbers():
    code = (
        "import sys, recipes.cli.train, recipes.config.composing, recipes.config.help, recipes.config.catalogue; "
        "sys.exit(bool({'torch', 'lightning', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_files_stay_short():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_names_of_a_runs_files_stand_in_one_place():
    names = {value for key, value in vars(run_files).items() if key.isupper() and "." in value}
    assert names
    for name, path in FILES.items():
        nodes = ast.walk(ast.parse(path.read_text()))
        found = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert name == "recipes.config.run_files" or not names & found, name


PRIVATE_FILE = "recipes.engine.lightning_private"
OF_OTHERS = {  # private names of other libraries
    *("_schema", "_buffers", "_modules", "_parameters", "_conv_forward"),  # torch
    *("_actions", "_is_none", "_get_node"),  # argparse, omegaconf
    "_registry",  # weakref.finalize
    *("_clear", "_run_exitfuncs"),  # atexit, as multiprocessing has it for its own forks since Python 3.13
}


def test_what_is_private_to_lightning_is_used_in_one_file():
    for name, path in FILES.items():
        tree = ast.parse(path.read_text())
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree) if name != PRIVATE_FILE else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning"):
                assert not any(alias.name.startswith("_") for alias in node.names), f"{name}: {ast.unparse(node)}"
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
                ours |= isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
                ours |= ast.unparse(node).startswith(("torch.", "nn."))
                assert ours or node.attr in OF_OTHERS | own, f"{name}, line {node.lineno}: {ast.unparse(node)}"


def test_technique_files_stay_short():
    files = [path for path in (ROOT / "plugins").glob("*/*.py") if path.name != "__init__.py"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    too_long = {name: length for name, length in lengths.items() if length > 160}
    assert not too_long
