"""Every command of the README and the guide runs as it stands there; those that take minutes are marked slow."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import command, variables
from tests.sparsely import sparsely

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))


def blocks(text):
    """The commands in a page, block by block, without the comments behind them."""
    found = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [[line.partition("  #")[0].strip() for line in block.splitlines() if line.strip()] for block in found]


BLOCKS = []
for path in (ROOT / "README.md", *GUIDE):
    BLOCKS += [block for block in blocks(path.read_text()) if block not in BLOCKS]
INSTALLING = [block for block in BLOCKS if block[0].startswith("python3 -m venv")]
ON_CLUSTER = [block for block in BLOCKS if "hydra/launcher=slurm" in block[0]]  # run by tests/cluster
COMMANDS = [block for block in BLOCKS if block not in INSTALLING and block not in ON_CLUSTER]
SCRIPTS = ("train.py", "evaluate.py", "predict.py", "export.py", "compare.py")
LONG = (
    "data=fashion_mnist",
    "recipe=fashion_mnist",
    "recipe=cifar10",
    "-m benchmarks",
    "train.py --help",
    "sweep=outputs/study",
    "hydra/sweeper=optuna",
    "seed=0,1,2,3,4",
    "seed=0,1 max_epochs=2",
    "data.folds=5",
    "model.name=vit_b_16",
    "seed=0,1 max_epochs=1",
    "tune=lr",
    "trainer=ddp",
)
LESS = {  # of benchmarks that take minutes
    "reading": " --size 0.01 --images 300",
    "cost": " --output costs.yaml wrapper",
    "diagnostics": " curvature lr --models mlp",
    "data": " --samples 2000",
    "adversarial": " --attacks fgsm free",
}
EXTRAS = {"data=huggingface": "datasets", "model=timm": "timm"}  # what a command needs beside
EXAMPLES = (ROOT / "docs/guide/data.md").read_text()


BESIDE = {  # files that the guide says to write, by name: their first line is it
    name: f"# {name}{code}"
    for path in GUIDE
    for name, code in re.findall(r"```python\n# (\w+\.py)(\n.*?)```", path.read_text(), flags=re.DOTALL)
}


@pytest.fixture
def place(tmp_path):
    """A folder that looks like a clone, so that outputs go to it, with the files of the guide."""
    for name, code in BESIDE.items():
        (tmp_path / name).write_text(code)
    for name in (*SCRIPTS, "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(line, place):
    words = shlex.split(line)
    assert words.pop(0) == "python"
    data = os.environ.get("FASHION_MNIST_ROOT", "")
    words = [data if word == "DIR" else word.replace("=DIR", f"={data}") for word in words]
    if any("RUN_FOLDER" in word for word in words):
        folders = sorted((place / "outputs").glob("*/*"))
        if not folders:
            run("python train.py", place)
            folders = sorted((place / "outputs").glob("*/*"))
        words = [word.replace("RUN_FOLDER", str(folders[-1])) for word in words]
    if words[0] in SCRIPTS:  # how long a start takes is not what is tested
        done = command(
            *words, cwd=place, forked=True, timeout=3600, COLUMNS="120", HF_HOME=str(place / "cache"), HF_HUB_OFFLINE="1"
        )
    else:
        environment = variables(PYTHONPATH=str(ROOT), COLUMNS="120", HF_HOME=str(place / "cache"), HF_HUB_OFFLINE="1")
        done = subprocess.run([sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


def prepare(block, place):
    """Write the files that the lines of Python above a block of the examples of data write."""
    for word, package in EXTRAS.items():
        if any(word in line for line in block):
            pytest.importorskip(package)
    for section in EXAMPLES.split("\n## "):
        if block in blocks(section):
            (place / "writes.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)))
            assert command(str(place / "writes.py"), cwd=place, forked=True, HF_HOME=str(place / "cache")).returncode == 0


def is_long(block):
    return any(word in command for command in block for word in LONG)


SHORT = [block for block in COMMANDS if not is_long(block)]
OF_README = [block for block in SHORT if block in blocks((ROOT / "README.md").read_text())]


@pytest.mark.parametrize(
    "block", [*OF_README, *sparsely(block for block in SHORT if block not in OF_README)], ids=lambda block: block[0]
)
def test_commands(block, place):
    prepare(block, place)
    for line in block:
        run(line, place)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in COMMANDS if is_long(block)], ids=lambda block: block[0])
def test_long_commands(block, place):
    prepare(block, place)
    if any("DIR" in command for command in block) and not os.environ.get("FASHION_MNIST_ROOT"):
        pytest.skip("FASHION_MNIST_ROOT does not name a folder with fashion_mnist.npz")
    for line in block:
        if "recipe=" in line:  # as it stands, but for the comparison of recipes, whose runs take 20 minutes
            line = line.replace("seed=0,1,2,3,4", "seed=0,1").replace("max_epochs=2", "max_steps=20")
        if "-m benchmarks" in line:  # that they run, not what they measure
            line += " --rounds 2" + next((less for name, less in LESS.items() if f"benchmarks.{name}" in line), "")
        output = run(line, place)
        if "data=fashion_mnist" in line:
            assert float(re.search(r"│ acc .*│ *([\d.]+) │", output).group(1)) >= 0.895
        if "-m recipe=" in line or "-m +regularizer" in line:
            (sweep,) = (place / "multirun").glob("*/*")
            for name in ("compare.png", "report.html", "compare.csv"):
                assert (sweep / name).stat().st_size and str(sweep.relative_to(place) / name) in output
            assert f"wandb    group {sweep.name} in project" in output or "logger=csv" in line


def test_continuous_integration_runs_what_the_readme_says():
    assert len(INSTALLING) == 2 and all(len(block) == 1 for block in INSTALLING)
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script and "test command" in script


@pytest.mark.slow
def test_predicting_from_python(place):
    code = next(code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "load(" in code)
    run("python train.py +regularizer=dropout hydra.run.dir=outputs/dropout max_epochs=5 logger=csv", place)
    (place / "script.py").write_text(code)
    environment = variables(PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES="")
    done = subprocess.run([sys.executable, "script.py"], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sum(a == b for a, b in zip(ast.literal_eval(done.stdout), [0, 1, 2, 3, 4], strict=True)) >= 3


@pytest.mark.slow
def test_python_example(tmp_path):
    code = next(code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "RecipeModule" in code)
    (tmp_path / "script.py").write_text(code)
    environment = variables(PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES="")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test/acc\W+([\d.]+)", done.stdout)[1]) > 0.8


WITH_PYTHON = [path for path in GUIDE if "```python" in path.read_text()]


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.name)
def test_python_examples(path, tmp_path, monkeypatch):
    import torch
    from torch import nn

    samples = torch.utils.data.TensorDataset(torch.rand(64, 1, 8, 8), torch.randint(4, (64,)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    names = {"model": model, "loader": torch.utils.data.DataLoader(samples, batch_size=16), "__name__": path.stem}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL):
        exec(code, names)
    if "RecipeModule(" in path.read_text():
        assert hasattr(names["module"].model[2], "dropout")


def test_own_data_model_and_metric(tmp_path, monkeypatch):
    """What the guide makes is what it says: a file that data=npz reads, a model of the shape, a metric that is measured."""
    import lightning as L
    import torch

    from recipes.data.npz import NpzData
    from recipes.engine.module import RecipeModule

    names = {"__name__": "own"}
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/guide/own.md").read_text(), flags=re.DOTALL):
        exec(code, names)
    assert NpzData("mine.npz").path.exists()
    model = names["Mine"](shape=(1, 16, 16), outputs=2, width=4)
    samples = torch.utils.data.TensorDataset(torch.rand(32, 1, 16, 16), torch.randint(2, (32,)))
    loader = torch.utils.data.DataLoader(samples, batch_size=16)
    module = RecipeModule(model, torch.nn.CrossEntropyLoss(), torch.optim.Adam)
    trainer = L.Trainer(max_steps=2, callbacks=[names["Confidence"]()], logger=False, enable_checkpointing=False)
    trainer.fit(module, loader, loader)
    expected = model.eval()(samples.tensors[0]).softmax(1).amax(1).mean()
    torch.testing.assert_close(trainer.callback_metrics["val/confidence"].cpu().float(), expected.float(), rtol=1e-4, atol=1e-5)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_table_names_options_that_exist():
    rows = dict(re.findall(r"^\| `\+?(\w+)=\S*` \| (.*) \|$", README, flags=re.MULTILINE))
    for folder in (ROOT / "conf").iterdir():
        options = {path.stem for path in folder.glob("*.yaml")} if folder.is_dir() else set()
        if options:
            assert set(rows[folder.name].replace("*", "").split(" · ")) <= options, folder.name
