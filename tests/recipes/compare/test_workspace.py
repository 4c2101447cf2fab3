import builtins
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from rich.console import Console

from plugins.errors import RecipeError
from recipes.compare import statistics, workspace
from recipes.compare.comparison import compare
from recipes.compare.runs import find, read
from recipes.compare.workspace import make, on_wandb, sections, show_workspace
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.run.train import train
from recipes.store.wandb_sync import sync_command
from tests.wandb_server import KEY, wandb_server

SWEPT = (("+regularizer=[]", "optimizer.lr=0.1"), ("+regularizer=[l2]", "optimizer.lr=0.05"))
SEEDS = (0, 1)
COMMON = ("model=mlp", "model.hidden=[8]", "max_steps=4", "trainer.val_every_n_steps=2", "trainer.log_every_n_steps=1")
COMMON += ("trainer.progress=false", "trainer.accelerator=cpu", "logger=wandb", "logger.wandb.mode=offline")


def run(folder, *words):
    """A tiny run in this process, as train.py would make it."""
    folder.mkdir(parents=True)
    train(finish(Catalogue(), compose(words), words), folder, words)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep's folder with two recipes of two seeds each, logged offline."""
    folder = tmp_path_factory.mktemp("here") / "sweep"
    folder.mkdir()
    jobs = {str(number): [*words, f"seed={seed}", *COMMON] for number, (words, seed) in enumerate(JOBS)}
    (folder / "jobs.yaml").write_text(yaml.safe_dump({"words": list(COMMON), "hydra": [], "jobs": jobs}))
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder.parent)
        for number, words in jobs.items():
            run(folder / number, *words)
        wandb.teardown()
    return folder


JOBS = [(words, seed) for words in SWEPT for seed in SEEDS]


def isolate(patch, folder):
    """No key, no settings of wandb's, and no terminal to ask for them."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT"):
        patch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "NETRC"):
        patch.setenv(name, str(folder / "home"))


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch, tmp_path, trained):
    isolate(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def sweep(trained, tmp_path):
    """The sweep, to be changed."""
    return shutil.copytree(trained, tmp_path / "my sweeps" / "first", symlinks=True)


def comparison_of(*places):
    """The comparison and its rows."""
    catalogue = Catalogue()
    found = compare([read(folder, catalogue) for folder in find(places)], catalogue)
    return found, statistics.rows(found)


def shown(capsys, *places, output=None):
    """What is printed, line by line."""
    show_workspace(*comparison_of(*places), output or places[0], Console(width=80))
    return capsys.readouterr().out.splitlines()


def spec_of(*places):
    """The workspace as it would be sent."""
    found, rows = comparison_of(*places)
    made = sections(found, rows, found.runs)
    return make(found, made, found.runs, "somebody", "recipes", "name")._to_model().spec.model_dump(by_alias=True)["section"]


def panels_of(spec):
    return [panel for section in spec["panelBankConfig"]["sections"] for panel in section["panels"]]


def in_a_shell(command, cwd, **environment):
    """What `wandb sync` says."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=cwd, env=os.environ | environment | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def would_sync(command, cwd):
    """The parts that wandb would sync if the command were typed."""
    lines = in_a_shell(command.replace("wandb sync", "wandb sync --dry-run --verbose"), cwd)
    return sorted((cwd / line.removeprefix("wandb:").strip()).parent.resolve() for line in lines if line.endswith(".wandb"))


def parts(*folders):
    return sorted(part for folder in folders for part in folder.resolve().glob("**/offline-run-*"))


# ------------------------------------------------------------------ the command that syncs


def test_one_short_command_syncs_a_sweep(sweep, tmp_path):
    command = sync_command([sweep])
    assert command == "wandb sync 'my sweeps/first'/*/wandb/offline-run-*"
    assert would_sync(command, tmp_path) == parts(sweep) and len(parts(sweep)) == 4
    assert sync_command([sweep, sweep / "0", tmp_path]) == command


def test_two_sweeps_and_a_run_are_one_command(sweep, tmp_path):
    second = shutil.copytree(sweep, tmp_path / "second", symlinks=True)
    single = shutil.copytree(sweep / "0", tmp_path / "-$(x) 'single'", symlinks=True)
    command = sync_command([sweep, second, single])
    assert would_sync(command, tmp_path) == parts(sweep, second, single)
    assert command.count("*/wandb/offline-run-*") == 2


def test_only_what_was_asked_for_is_synced(sweep, tmp_path):
    command = sync_command([sweep / "1", sweep / "3"])
    assert would_sync(command, tmp_path) == parts(sweep / "1", sweep / "3")


def test_what_is_on_the_server_is_left_out(sweep, tmp_path):
    def note(folder):
        (part,) = folder.glob("wandb/offline-run-*")
        next(part.glob("*.wandb")).with_suffix(".wandb.synced").touch()

    note(sweep / "1")
    assert would_sync(sync_command([sweep]), tmp_path) == parts(sweep / "0", sweep / "2", sweep / "3")
    assert sync_command([sweep / "1"]) is None
    (online,) = (sweep / "0").glob("wandb/offline-run-*")
    online.rename(online.with_name(online.name.removeprefix("offline-")))
    (sweep / "0" / "wandb" / "latest-run").unlink()
    assert would_sync(sync_command([sweep]), tmp_path) == parts(sweep / "2", sweep / "3")
    note(sweep / "2"), note(sweep / "3")
    assert sync_command([sweep]) is None and sync_command([tmp_path / "nothing"]) is None


def add_part(folder, content):
    """A later part of a run."""
    (first,) = folder.glob("wandb/offline-run-*")
    later = first.with_name(first.name.replace("offline-run-2", "offline-run-3"))
    shutil.copytree(first, later)
    next(later.glob("*.wandb")).write_bytes(content)
    latest = folder / "wandb" / "latest-run"
    latest.unlink()
    latest.symlink_to(later.name)
    return later.resolve()


def test_of_a_resumed_run_the_last_part_is_synced(sweep, tmp_path):
    (first,) = (sweep / "2").glob("wandb/offline-run-*/*.wandb")
    later = add_part(sweep / "2", first.read_bytes())
    command = sync_command([sweep])
    assert command == "wandb sync 'my sweeps/first'/*/wandb/latest-run"
    assert would_sync(command, tmp_path) == sorted([*parts(sweep / "0", sweep / "1", sweep / "3"), later])


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 7])
def test_a_part_that_holds_nothing_does_not_keep_the_others_back(sweep, tmp_path, size):
    """`wandb sync` of several runs ends at a file without a record, which a process leaves that is killed as it starts."""
    content = next((sweep / "1").glob("wandb/offline-run-*/*.wandb")).read_bytes()[:size]
    add_part(sweep / "1", content)
    (before,) = (sweep / "1").glob("wandb/offline-run-2*")
    command = sync_command([sweep])
    assert would_sync(command, tmp_path) == sorted([*parts(sweep / "0", sweep / "2", sweep / "3"), before.resolve()])
    with wandb_server() as server:
        in_a_shell(command, tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
        assert len(server.runs) == 4
    assert sync_command([sweep]) is None


def test_where_runs_are_is_read_from_their_results(sweep):
    found, _ = comparison_of(sweep)
    assert on_wandb(found) == {"wandb": "group sweep in project lightning-recipes", "sync": sync_command([sweep])}
    for number in range(4):
        change(sweep / str(number), url=f"https://wandb.example/me/recipes/runs/{number}")
        shutil.rmtree(sweep / str(number) / "wandb")
    assert on_wandb(comparison_of(sweep)[0]) == {"wandb": "group sweep in https://wandb.example/me/recipes"}


# ------------------------------------------------------------------ the workspace


def change(folder, **values):
    """Change what a result says of wandb."""
    result = json.loads((folder / "result.json").read_text())
    result["wandb"] |= values
    (folder / "result.json").write_text(json.dumps(result))


def test_only_the_compared_runs_averaged_over_seeds(trained):
    spec = spec_of(trained)
    (runset,) = spec["runSets"]
    ids = [json.loads((trained / str(number) / "result.json").read_text())["wandb"]["id"] for number in range(4)]
    assert runset["filters"]["filters"] == [
        {"key": {"section": "run", "name": "name"}, "op": "IN", "value": ids, "disabled": False}
    ]
    assert [(key["section"], key["name"]) for key in runset["grouping"]] == [("run", "group"), ("run", "jobType")]
    assert spec["settings"]["useRunsTableGroupingInPanels"]
    lines = {panel["config"]["metrics"][0]: panel for panel in panels_of(spec) if panel["viewType"] == "Run History Line Plot"}
    assert {"val/acc", "val/loss", "train/loss", "l2/penalty"} <= lines.keys()
    for panel in lines.values():
        assert panel["config"]["xAxis"] == "trainer/global_step"
        assert (panel["config"]["groupAgg"], panel["config"]["groupArea"]) == ("mean", "stddev")


def test_it_has_the_views_of_the_report(trained):
    spec = spec_of(trained)
    panels = panels_of(spec)
    bars = [panel["config"] for panel in panels if panel["viewType"] == "Bar Chart"]
    assert bars[0]["metrics"] == ["result/test/acc"] and (bars[0]["groupAgg"], bars[0]["groupArea"]) == ("mean", "stddev")
    (scatter,) = (panel["config"] for panel in panels if panel["viewType"] == "Scatter Plot")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:seconds", "summary:result/test/acc")
    (parallel,) = (panel["config"] for panel in panels if panel["viewType"] == "Parallel Coordinates Plot")
    assert [column["accessor"] for column in parallel["columns"]] == [
        "run:jobType",
        "config:optimizer.value.lr",
        "summary:result/test/acc",
    ]
    assert any(panel["viewType"] == "Run Comparer" for panel in panels)
    (table,) = (panel["config"]["value"] for panel in panels if panel["viewType"] == "Markdown Panel")
    assert "+regularizer=l2" in table
    assert [section["name"] for section in spec["panelBankConfig"]["sections"]][-1] == "l2"


def test_what_the_panels_show_is_what_runs_send(sweep, tmp_path):
    """A panel whose name is wrong in a letter stays empty without a word."""
    with wandb_server() as server:
        in_a_shell(sync_command([sweep]), tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    runs = server.runs.values()
    assert {run["groupName"] for run in runs} == {"sweep"}
    assert sorted(run["jobType"] for run in runs) == sorted(" ".join(words) for words, _ in JOBS)
    assert sorted(run["displayName"] for run in runs) == sorted(f"{' '.join(words)} seed={seed}" for words, seed in JOBS)
    sent = {name for run in runs for row in run["history"] for name in row}
    for run in runs:
        for panel in panels_of(spec_of(sweep)):
            kind, config = panel["viewType"], panel["config"]
            if kind == "Run History Line Plot":
                assert {*config["metrics"], config["xAxis"]} <= sent
            elif kind == "Bar Chart":
                assert isinstance(run["summary"][config["metrics"][0]], int | float)
            accessors = [config.get("xAxis"), config.get("yAxis")] if kind == "Scatter Plot" else []
            accessors += [column["accessor"] for column in config.get("columns") or []]
            for accessor in accessors:
                section, _, name = accessor.partition(":")
                if section == "summary":
                    assert isinstance(run["summary"][name], int | float)
                elif section == "config":
                    top, value, rest = name.split(".")
                    assert json.loads(run["config"])[top][value][rest] in (0.1, 0.05)
                else:
                    assert accessor == "run:jobType"


def test_it_is_made_once_and_then_updated(sweep, monkeypatch, capsys, tmp_path):
    import wandb_workspaces.workspaces as ws

    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        lines = shown(capsys, sweep / "0", sweep / "2", output=tmp_path)
        (saved,) = (line for line in lines if "saved:" in line)
        remembered = json.loads((tmp_path / "wandb-workspace.json").read_text())
        assert saved.split()[-1] == remembered["url"] and f"{server.url}/somebody/lightning-recipes?nw=" in remembered["url"]
        assert any(line.startswith("sync     wandb sync") for line in lines)
        ((name, view),) = server.views.items()
        first = json.loads(view["spec"])
        assert len(first["section"]["runSets"][0]["filters"]["filters"][0]["value"]) == 2

        mine = ws.Workspace.from_url(remembered["url"])
        mine.sections = [*mine.sections, ws.Section(name="my own", panels=[])]
        mine.save()
        again = shown(capsys, sweep, output=tmp_path)
        assert saved in again and list(server.views) == [name]
        spec = json.loads(server.views[name]["spec"])
        names = [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]]
        assert names[-1] == "my own" and len(names) == len(set(names)) and names[:-1] == remembered["sections"]
        assert len(spec["section"]["runSets"][0]["filters"]["filters"][0]["value"]) == 4

        server.views.clear()  # somebody removes it
        shown(capsys, sweep, output=tmp_path)
        assert len(server.views) == 1 and name not in server.views
        assert server.requests.count("mutation UpsertView2") == 4


def test_nobody_is_asked_for_a_key(sweep, monkeypatch, capsys):
    monkeypatch.setattr(builtins, "input", None)
    lines = shown(capsys, sweep)
    assert lines[0] == (
        "wandb    workspace 'comparison first' in project lightning-recipes: 4 runs, grouped by group and job type"
    )
    text = "\n".join(lines)
    for part in ("test/acc against seconds", "val/acc · val/loss", "hyperparameters", "run comparer", "l2/penalty"):
        assert part in text
    assert "not saved: there is no key on this machine" in text and "wandb login" in text
    assert lines[-1] == f"sync     {sync_command([sweep])}"
    assert not (sweep / "wandb-workspace.json").exists()


def test_wandb_mode_offline_sends_nothing(sweep, monkeypatch, capsys):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_MODE", "offline")
        assert "         not saved: WANDB_MODE is offline" in shown(capsys, sweep)
        assert not server.requests


def test_a_server_that_does_not_answer_is_one_line(sweep, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    lines = shown(capsys, sweep)
    (line,) = (line for line in lines if "not saved" in line)
    assert str(port) in line and "refused" in line  # and not that it did not respond in time


def test_a_server_that_refuses_is_one_line(sweep, monkeypatch, capsys):
    with wandb_server() as server:
        answer = server.graphql

        def refuse(query, values):
            if "upsertView" in query:
                return None
            return answer(query, values)

        server.graphql = refuse
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        lines = shown(capsys, sweep)
    assert len([line for line in lines if "not saved: " in line]) == 1
    assert not (sweep / "wandb-workspace.json").exists()


def test_runs_that_are_not_on_wandb(sweep, capsys):
    for number in range(4):
        assert (f"left out: {number} not logged to wandb" in "\n".join(shown(capsys, sweep))) == (number > 0)
        result = json.loads((sweep / str(number) / "result.json").read_text())
        del result["wandb"]
        (sweep / str(number) / "result.json").write_text(json.dumps(result))
    (line,) = shown(capsys, sweep)
    assert "none of these runs was logged to wandb" in line and "logger=wandb" in line


def test_of_several_projects_the_one_with_most_runs_is_shown(sweep, capsys):
    change(sweep / "0", project="elsewhere")
    lines = shown(capsys, sweep)
    assert "in project lightning-recipes: 3 of 4 runs" in lines[0]
    assert any("left out: 1 in other projects" in line for line in lines)
    change(sweep / "1", entity="me")
    assert "in project lightning-recipes: 3 of 4 runs" in shown(capsys, sweep)[0]  # logged offline: may be mine, too
    change(sweep / "2", entity="you")
    change(sweep / "3", entity="you")
    found, _ = comparison_of(sweep)
    entity, project, chosen = workspace.choose_project(found.runs)
    assert (entity, project, len(chosen)) == ("you", "lightning-recipes", 2)


def test_without_its_package_is_one_line(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(RecipeError, match="pip install"):
        show_workspace(*comparison_of(sweep), sweep, Console())
