"""Which folders a new run takes, and which files are removed from one: none that a run has not written itself."""

import json
import os

import numpy as np
import pytest

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_RESUME, change
from recipes.launch.failures import leave_note, write_log
from recipes.launch.job import can_go_on
from recipes.run import run
from recipes.run import train as module
from recipes.run.train import train
from recipes.store.claim import Claim, claim, remove_parts, remove_run, set_aside, written
from recipes.store.folder import write_result
from tests.command import command, mistake

WORDS = ["model=linear", "max_steps=4"]
OURS = ("config.yaml", "result.json", "metrics.csv", "histograms.csv", "confusion.json", "checkpoints", "pictures", "wandb")


def content(folder):
    """Every file below a folder, with its content."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(folder, before):
    """The files that are not as they were."""
    now = content(folder)
    return [str(path) for path in {*now, *before} if now.get(path) != before.get(path)]


def run_in(folder, status="finished", words=WORDS):
    """What a run leaves that counts here."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"status": status, "command": list(words), "config": {}}))
    (folder / "config.yaml").write_text("# The resolved config of this run. To repeat it:\n")
    (folder / "train.log").write_text("started")
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"state")
    return folder


@pytest.mark.parametrize("there", [(), ("train.log",), ("result.json.part-12",), ("output.log",), ("slurm-job.txt",)])
def test_an_empty_or_hardly_begun_folder_is_taken(tmp_path, there):
    assert claim(tmp_path / "new", WORDS) == Claim.NEW
    for name in there:
        (tmp_path / name).touch()
    assert claim(tmp_path, WORDS) == Claim.NEW


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_another_program_in_the_place_of_ours_is_never_touched(tmp_path, name, overwrite):
    (tmp_path / name).mkdir() if "." not in name else (tmp_path / name).write_text("mine")
    with pytest.raises(RecipeError, match=name):
        claim(tmp_path, WORDS, overwrite)


def test_a_filled_train_log_is_somebody_elses(tmp_path):
    (tmp_path / "train.log").write_text("mine")
    with pytest.raises(RecipeError, match=r"train\.log"):
        claim(tmp_path, WORDS, overwrite=True)


def test_what_ranks_have_said_before_there_was_a_result_is_ours(tmp_path):
    leave_note(tmp_path, 1, "killed by signal 9")
    write_log(tmp_path, "ERROR killed by signal 9", 1)
    assert claim(tmp_path, WORDS) == Claim.NEW


def test_a_run_that_is_killed_before_its_first_result_leaves_a_folder_that_is_taken(folder, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*arguments):
        raise Killed

    monkeypatch.setattr(run, "write_result", kill)
    with pytest.raises(Killed):
        folder.train("max_steps=1")
    assert {path.name for path in folder.path.iterdir()} == {"train.log"}
    assert claim(folder.path, WORDS) == claim(folder.path, WORDS, overwrite=True) == Claim.NEW


def test_a_run_that_is_killed_while_it_replaces_another_one_never_goes_on_with_that(folder, folders, monkeypatch):
    folder.train("max_steps=3")
    before, seen = content(folder.path), []
    monkeypatch.setattr(run, "write_result", lambda place, result: seen.append(content(place)) or full(place, result))

    def full(place, result):
        raise RecipeError("is there room on the disk?")

    with pytest.raises(RecipeError, match="room"):
        folder.train("max_steps=4", "seed=1", "overwrite=true")
    names = {path.name for path in seen[0]}
    assert names.isdisjoint({"config.yaml", "last.ckpt", "best.ckpt"}) and "result.json" in names
    assert changed(folder.path, before) in ([], ["train.log"])  # all is back
    monkeypatch.setattr(run, "write_result", write_result)
    words = [*WORDS, "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu", "seed=1"]
    wandb = folder.path / "wandb" / "run-id.txt"
    wandb.parent.mkdir()
    wandb.write_text("abc")
    aside = set_aside(folder.path)
    aside.__enter__()  # killed here, or after the next line
    assert not can_go_on(folder.path)
    with pytest.raises(RecipeError, match="finished run"):
        claim(folder.path, words)
    write_result(folder.path, {"status": "running", "command": words, "config": {"seed": 1}})
    assert claim(folder.path, words) == Claim.GO_ON
    monkeypatch.chdir(folder.path.parent)
    done = command("train.py", *words, "hydra.run.dir=run", cwd=folder.path.parent, forked=True)
    assert done.returncode == 0 and "going on" not in done.stdout
    other = folders("other")
    other.train(*words[:2], "seed=1")
    assert folder.result["metrics"] == other.result["metrics"]
    assert not wandb.exists() and not list(folder.path.rglob("*.part-*"))


def test_beside_other_files_only_on_request(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="overwrite=true"):
        claim(tmp_path, WORDS)
    assert claim(tmp_path, WORDS, overwrite=True) == Claim.NEW


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_an_unfinished_run_goes_on_with_the_same_words_only(tmp_path, status):
    folder = run_in(tmp_path / "run", status)
    assert claim(folder, reversed(WORDS)) == Claim.GO_ON
    with pytest.raises(RecipeError, match="unfinished run of other words.*resume="):
        claim(folder, [*WORDS, "seed=1"])
    assert claim(folder, [*WORDS, "seed=1", "overwrite=true"], overwrite=True) == Claim.REPLACE


def test_a_finished_run_is_kept_unless_a_cluster_starts_its_command_again(tmp_path):
    folder = run_in(tmp_path / "run")
    with pytest.raises(RecipeError, match=r"finished run.*max_epochs.*overwrite=true.*hydra\.run\.dir"):
        claim(folder, WORDS)
    assert claim(folder, WORDS, again=True) == Claim.GO_ON
    with pytest.raises(RecipeError, match="finished run"):
        claim(folder, [*WORDS, "seed=1"], again=True)


def test_a_job_that_a_cluster_starts_again_goes_on_with_what_it_has_written_itself(tmp_path):
    folder = run_in(tmp_path / "run", "stopped")
    words = [*WORDS, "overwrite=true"]
    assert claim(folder, words, True, again=True, job="7") == Claim.REPLACE  # it is not known who has written it
    result = {"status": "stopped", "command": WORDS, "config": {}, "slurm_job": "7"}
    (folder / "result.json").write_text(json.dumps(result))
    assert claim(folder, words, True, again=True, job="7") == Claim.GO_ON
    assert claim(folder, words, True, again=True, job="8") == Claim.REPLACE
    assert claim(folder, words, True, again=False, job="7") == Claim.REPLACE
    assert claim(folder, [*words, "seed=1"], True, again=True, job="7") == Claim.REPLACE
    (folder / "result.json").write_text(json.dumps(result | {"status": "diverged"}))
    assert claim(folder, words, True, again=True, job="7") == Claim.REPLACE


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"status": "stopped"}', '{"status": "stopped", "command": "a"}'])
def test_a_result_that_is_not_ours_is_no_run(tmp_path, text):
    folder = run_in(tmp_path / "run", "stopped")
    (folder / "result.json").write_text(text)
    with pytest.raises(RecipeError, match="no run that has written this"):
        claim(folder, WORDS, overwrite=True)


def test_a_config_that_is_not_ours_is_no_run(tmp_path):
    folder = run_in(tmp_path / "run", "stopped")
    (folder / "config.yaml").write_text("theme: dark\n")
    with pytest.raises(RecipeError, match="no run that has written this"):
        claim(folder, WORDS)


def test_only_exact_names_are_removed(tmp_path):
    folder = run_in(tmp_path / "run")
    begun = ["config.yaml.part-1", "checkpoints/last.ckpt.part-99", "metrics.csv.part-123"]
    mine = ["notes.part-1", "config.yaml.part-x", "checkpoints/mine.ckpt", "checkpoints/mine.ckpt.part-1", "deep/result.json"]
    mine += ["pictures/holiday.png", "wandb/mine.txt", "wandb/run-20200101_000000-other/x", "errors/mine.json", "data.csv"]
    for name in [*begun, *mine, "pictures/mixup.png", "errors/0.json", "wandb/offline-run-20200101_000000-abc/files/x"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "wandb" / "run-id.txt").write_text("abc")
    (folder / "wandb" / "latest-run").symlink_to("offline-run-20200101_000000-abc")
    remove_parts(folder)
    assert not any((folder / name).exists() for name in begun) and all((folder / name).exists() for name in mine)
    remove_run(folder)
    assert {str(path) for path in content(folder)} == set(mine)
    assert not (folder / "wandb" / "latest-run").is_symlink()


def test_nothing_is_removed_behind_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "best.ckpt").write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoints").symlink_to(elsewhere)
    assert not list(written(folder))
    remove_run(folder)
    assert (elsewhere / "best.ckpt").exists()


def test_a_folder_of_ones_own_and_a_finished_run_survive_the_command(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("config.yaml", "x.part-1", "result.json.part-y"):
        (tmp_path / "mine" / name).write_text("mine")
    before = content(tmp_path)
    assert "config.yaml" in mistake("hydra.run.dir=.", *WORDS, cwd=tmp_path / "mine", forked=True)
    assert "hydra.run.dir has no name" in mistake("hydra.run.dir=", *WORDS, cwd=tmp_path / "mine", forked=True)
    assert "no sweep" in mistake("-m", "seed=0,1", "hydra.sweep.dir=mine", cwd=tmp_path, forked=True)
    assert "single run" in mistake("-m", "seed=0,1", "overwrite=true", cwd=tmp_path, forked=True)
    assert content(tmp_path) == before
    words = [*WORDS, "logger=csv", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    assert command("train.py", *words, cwd=tmp_path, forked=True).returncode == 0
    before = content(tmp_path)
    refused = command("train.py", *words, cwd=tmp_path, forked=True)
    assert refused.returncode == 2 and "holds a finished run" in refused.stderr
    refused = command("train.py", "-m", "seed=0,1", "sweep=run", cwd=tmp_path, forked=True)
    assert refused.returncode == 2 and "no sweep" in refused.stderr
    assert content(tmp_path) == before
    assert command("train.py", *words, "seed=1", "overwrite=true", cwd=tmp_path, forked=True).returncode == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["seed"] == 1 and "overwrite=true" not in result["command"]
    assert (tmp_path / "run" / "train.log").read_text().count("started") == 1


# ------------------------------------------------------------------ resumes that cannot go on


def test_a_run_that_another_command_has_left_meanwhile_is_kept(folder, monkeypatch):
    build, before = module.build_data, {}

    def late(config):
        before.update(content(run_in(folder.path)))
        return build(config)

    with monkeypatch.context() as patch:
        patch.setattr(module, "build_data", late)
        with pytest.raises(RecipeError, match="another process has left there since this command began"):
            folder.train("max_steps=1")
    assert before and changed(folder.path, before) == []
    assert folder.train("max_steps=1", "overwrite=true")["status"] == "finished"


@pytest.fixture
def data(tmp_path):
    """An npz file of one's own."""
    path = tmp_path / "data.npz"
    random = np.random.default_rng(0)
    np.savez(path, x=random.random((60, 3), dtype=np.float32), y=np.arange(60) % 3)
    return path


@pytest.fixture
def finished(folder, data):
    """A finished run on these data."""
    folder.train("data=npz", f"data.path={data}", "model=linear", "max_steps=3", "trainer.log_every_n_steps=1")
    return folder


def resume(folder, *words):
    """`python train.py resume=FOLDER WORDS` in this process."""
    catalogue = Catalogue()
    from recipes.config.changing import read_run

    config = change(catalogue, read_run(catalogue, folder.path), list(words), ON_RESUME, "resume")
    return train(config | {"resume": str(folder.path)}, folder.path, [f"resume={folder.path}", *words])


def test_data_that_have_moved_are_named_again(finished, data, tmp_path):
    before = content(finished.path)
    data.rename(tmp_path / "moved.npz")
    with pytest.raises(RecipeError, match=r"data\.npz.*data\.path"):
        resume(finished, "max_steps=6")
    np.savez(data, x=np.zeros((60, 3), np.float32), y=np.arange(60) % 3)
    with pytest.raises(RecipeError, match="other content"):
        resume(finished, "max_steps=6")
    assert changed(finished.path, before) == []
    moved = resume(finished, "max_steps=6", f"data.path={tmp_path / 'moved.npz'}")
    assert moved["status"] == "finished" and moved["steps"] == 6 and moved["config"]["data"]["path"].endswith("moved.npz")


@pytest.mark.parametrize("damage", ["empty", "other"])
def test_a_checkpoint_that_does_not_load(finished, folders, damage):
    path = finished.path / "checkpoints" / "last.ckpt"
    if damage == "empty":
        path.write_bytes(b"")
    else:  # of another model
        other = folders("other")
        other.train("model=mlp", "model.hidden=[4]", "max_steps=3")
        path.write_bytes((other.path / "checkpoints" / "last.ckpt").read_bytes())
    before = content(finished.path)
    with pytest.raises(Exception):  # noqa: B017, PT011 the point is what it leaves
        resume(finished, "max_steps=6")
    assert changed(finished.path, before) == []


def test_a_finished_run_without_its_checkpoint_does_not_start_over(finished):
    (finished.path / "checkpoints" / "last.ckpt").unlink()
    before = content(finished.path)
    with pytest.raises(RecipeError, match=r"last\.ckpt is not there"):
        resume(finished, "max_steps=6")
    assert changed(finished.path, before) == []


def test_a_technique_that_fails_before_the_first_new_step(finished, with_plugin, extra):
    class Failing(extra):
        def transform_batch(self, batch, module):
            raise RecipeError("not today")

    before = content(finished.path)
    with_plugin(Failing)
    with pytest.raises(RecipeError, match="not today"):
        resume(finished, "max_steps=6", "trainer.save_every_n_steps=1")
    assert changed(finished.path, before) == []


def test_a_stop_before_the_first_new_step(finished, with_plugin, extra):
    class Stopping(extra):
        def on_train_start(self, trainer, pl_module):
            os.kill(os.getpid(), 15)

    before = content(finished.path)
    with_plugin(Stopping)
    assert resume(finished, "max_steps=6")["status"] == "stopped"
    assert changed(finished.path, before) == []


def test_what_fails_after_the_first_new_step_is_in_the_result(finished, with_plugin, extra):
    class Failing(extra):
        def transform_batch(self, batch, module):
            if module.steps_done == 4:
                raise RecipeError("not today")
            return batch

    with_plugin(Failing)
    with pytest.raises(RecipeError, match="not today"):
        resume(finished, "max_steps=6")
    assert finished.result["status"] == "failed" and finished.result["error"] == "not today"
    assert [row["step"] for row in finished.rows][-1] == "4"
