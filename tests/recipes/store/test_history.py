"""What held in a run and from which step on: kept, shown, and refused where the run would see other samples."""

import copy
import json
import re

import pytest
import yaml

from plugins.errors import RecipeError
from recipes.compare.runs import read
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_RESUME, change, read_run
from recipes.run import resume, train
from recipes.store import history, shapes
from recipes.store.history import changes, go_on, history_of, resumed
from tests.recipes.run.test_limits import assert_same, files
from tests.recipes.run.test_run import stopper

PLACES = {  # words with which a step takes other samples, of a run of 32 samples a step
    "trainer.accumulate_grad_batches=2": "64 samples a step, the 7 steps done had 32",
    "trainer.accumulate_grad_batches=3": "96 samples a step, the 7 steps done had 32",
}
APART = {  # words that change what the further steps do, or which of them is tested
    "trainer.precision=64-true": "trainer.precision 32-true→64-true",
    "trainer.precision=bf16-mixed": "trainer.precision 32-true→bf16-mixed",
    "trainer.val_every_n_steps=2": "trainer.val_every_n_steps null→2",
}
SAME = ("max_steps=13", "trainer.save_every_n_steps=1", "trainer.log_every_n_steps=3", "notes=later", "tags=[a]", "logger=[]")


def go(folder, *words):
    """`python train.py resume=FOLDER WORDS`, in this process."""
    catalogue = Catalogue()
    config = change(catalogue, read_run(catalogue, folder.path), list(words), ON_RESUME, "resume")
    return train.train(config | {"resume": str(folder.path)}, folder.path, [f"resume={folder.path}", *words])


@pytest.fixture
def stopped(folder, with_plugin, extra):
    """A run of twelve steps that was stopped after seven."""
    with_plugin(stopper(extra, 6))
    assert folder.train("model=linear", "max_steps=12")["steps"] == 7
    with_plugin()
    return folder


def head(folder):
    lines = (folder.path / "config.yaml").read_text().splitlines()
    return [line for line in lines if line.startswith("#")]


def test_a_run_that_goes_on_as_it_was_has_one_entry_and_is_the_whole_run(stopped, folders):
    go(stopped)
    whole = folders("whole")
    whole.train("model=linear", "max_steps=12")
    assert_same(stopped, whole)
    assert [entry["step"] for entry in stopped.result["history"]] == [0] and stopped.result["history"] == whole.result[
        "history"
    ]
    assert not resumed(stopped.result) and head(stopped)[0].endswith("To repeat it:")
    entry = whole.result["history"][0]
    assert entry["command"] == whole.result["command"] and entry["samples_per_step"] == 32
    assert all(entry[name] == whole.result[name] for name in history.FACTS)


@pytest.mark.parametrize("word", APART)
def test_words_that_make_another_run_are_kept_told_and_keep_it_apart(stopped, capsys, word):
    capsys.readouterr()
    go(stopped, word)
    said, result = capsys.readouterr().out, stopped.result
    assert [entry["step"] for entry in result["history"]] == [0, 7]
    assert result["history"][0]["command"] == [*resume.resume_command({}, result["command"][:-1])]
    assert result["history"][1]["command"][-1] == word and resumed(result) == f"{APART[word]} at step 7"
    line = f"history  from step 7: {APART[word]}"
    assert said.count(line) == 2 and said.count("comparisons keep it apart") == 2  # when it goes on, and at its end
    assert read(stopped.path, Catalogue()).resumed == f"{APART[word]} at step 7"
    first, *commands = head(stopped)
    assert "no single command repeats it" in first and len(commands) == 2 and word in commands[1] and word not in commands[0]
    go(stopped)  # nothing more to do: told again
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("word", SAME)
def test_words_on_the_way_to_the_same_end_keep_nothing_apart(stopped, word):
    go(stopped, word)
    assert not resumed(stopped.result) and not read(stopped.path, Catalogue()).resumed
    assert "To repeat it" in head(stopped)[0]
    key = word.partition("=")[0]
    assert (key in stopped.result["history"][-1]["changed"]) == (word != "logger=[]")


@pytest.mark.parametrize("word", PLACES)
def test_words_that_move_the_place_in_the_data_are_refused_in_one_line(stopped, word):
    before = files(stopped)
    with pytest.raises(RecipeError) as error:
        go(stopped, word)
    assert PLACES[word] in str(error.value) and word in str(error.value) and "\n" not in str(error.value)
    assert "start a new run: python train.py" in str(error.value) and files(stopped) == before


def test_accumulation_of_whole_batches_moves_where_they_cannot_be_cut(folder, with_plugin, extra):
    """All 1,293 samples a step are cut into three parts, but not into two."""
    with_plugin(stopper(extra, 2))
    folder.train("model=linear", "max_steps=4", "data.batch_size=full")
    with_plugin()
    with pytest.raises(RecipeError, match="makes 1292 samples a step, the 3 steps done had 1293"):
        go(folder, "trainer.accumulate_grad_batches=2")
    go(folder, "trainer.accumulate_grad_batches=3")
    assert resumed(folder.result) == "trainer.accumulate_grad_batches 1→3 at step 3"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 3),
        ("data.batch_size", 16),
        ("data.batch_size", "full"),
        ("optimizer.lr", 0.5),
        ("model.hidden", [4]),
        ("data.test", 0.3),
    ],
)
def test_a_config_that_was_edited_is_refused(folder, with_plugin, extra, key, value):
    """What only a new run can take up is not taken for what the run had."""
    with_plugin(stopper(extra, 6))
    folder.train("max_steps=12")
    with_plugin()
    path = folder.path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    *above, name = key.split(".")
    node = config[above[0]] if above else config
    node[name] = value
    path.write_text(yaml.safe_dump(config))
    before = files(folder)
    with pytest.raises(RecipeError) as error:
        go(folder)
    assert "\n" not in str(error.value) and files(folder) == before
    if key not in ("model.hidden", "data.test"):  # whose checkpoint or data do not fit
        assert str(error.value).startswith(f"{key} was ")


def test_what_held_in_steps_that_were_lost_is_forgotten(stopped, with_plugin, extra):
    """Killed before a new state is saved, the run goes on from where it did before."""

    class Dies(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 9:
                raise SystemExit

    with_plugin(Dies)
    with pytest.raises(SystemExit):
        go(stopped, "trainer.precision=64-true")
    assert resumed(stopped.result)
    with_plugin()
    go(stopped, "trainer.precision=32-true")
    assert len(stopped.result["history"]) == 1 and not resumed(stopped.result)


def test_several_changes_are_told_each_with_its_step(stopped, with_plugin, extra):
    with_plugin(stopper(extra, 8))
    go(stopped, "trainer.precision=64-true", "max_steps=14")
    with_plugin()
    go(stopped, "trainer.val_every_n_steps=3")
    assert resumed(stopped.result) == (
        "trainer.precision 32-true→64-true at step 7, trainer.val_every_n_steps null→3 at step 9"
    )
    assert list(history.lines(stopped.result)) == [
        "from step 7: max_steps 12→14, trainer.precision 32-true→64-true",
        "from step 9: trainer.val_every_n_steps null→3",
    ]


@pytest.mark.parametrize("fact", [{"machine": "another"}, {"versions": {"torch": "1.0"}}, {"git_commit": "f" * 40}])
def test_another_version_or_machine_is_kept_and_told_but_keeps_nothing_apart(stopped, fact):
    path = stopped.path / "result.json"
    result = json.loads(path.read_text())
    result |= fact
    result["history"][0] |= fact
    path.write_text(json.dumps(result))
    go(stopped)
    first, second = stopped.result["history"]
    assert second["step"] == 7 and second["changed"] == {} and not resumed(stopped.result)
    (name,) = fact
    assert first[name] == fact[name] != second[name]
    (line,) = history.lines(stopped.result)
    assert re.match(r"from step 7: .*→", line)


def test_a_run_of_an_older_version_goes_on(stopped):
    path = stopped.path / "result.json"
    result = json.loads(path.read_text())
    for name in ("history", "choices", "data_content", "samples_per_step"):
        del result[name]
    path.write_text(json.dumps(result))
    assert len(history_of(result)) == 1 and not resumed(result) and not list(history.lines(result))
    with pytest.raises(RecipeError, match=r"accumulate_grad_batches=2 makes 20 steps an epoch, the 7 steps done had 40"):
        go(stopped, "trainer.accumulate_grad_batches=2")
    go(stopped, "trainer.precision=64-true")
    assert resumed(stopped.result) == "trainer.precision 32-true→64-true at step 7"


def test_a_run_that_starts_over_begins_its_history(stopped):
    (stopped.path / "checkpoints" / "last.ckpt").unlink()
    go(stopped, "trainer.precision=64-true", "trainer.accumulate_grad_batches=2")
    assert [entry["step"] for entry in stopped.result["history"]] == [0] and not resumed(stopped.result)


def test_an_option_takes_its_earlier_values_along():
    earlier = {"command": ["trainer.devices=4", "trainer.precision=64-true", "max_epochs=3", "logger=csv"]}
    assert resume.resume_command(earlier, ["resume=x", "trainer=ddp"]) == ["max_epochs=3", "logger=csv", "trainer=ddp"]
    assert resume.resume_command(earlier, ["trainer.devices=2"])[-1] == "trainer.devices=2"
    assert "trainer.precision=64-true" in resume.resume_command(earlier, ["trainer.devices=2"])


def test_explain_tells_what_a_resume_would_do_and_does_nothing(stopped, capsys):
    before = files(stopped)
    assert go(stopped, "explain=true", "trainer.precision=64-true") == {"status": "explained"}
    said = capsys.readouterr().out
    assert "goes on from step 7\n" in said and "history  from step 7: trainer.precision 32-true→64-true\n" in said
    with pytest.raises(RecipeError, match="samples a step"):
        go(stopped, "explain=true", "trainer.accumulate_grad_batches=2")
    assert files(stopped) == before
    go(stopped)
    assert stopped.result["config"]["explain"] is False


def test_what_is_not_finite_is_no_change():
    earlier = {"config": {"clipping": {"norm": {"max_norm": None}}}, "command": []}
    now = {"config": {"clipping": {"norm": {"max_norm": float("inf")}}}, "command": []}
    assert changes(earlier, now, 3) == {} and len(go_on(earlier, now, 3)) == 1


WHOLE = {"step": 0, "command": ["a=1"], "changed": {}, "versions": {}, "git_commit": None, "machine": "x"}


@pytest.mark.parametrize(
    "entries",
    [
        3,
        ["x"],
        [{}],
        [{**WHOLE, "step": 1}],
        [{**WHOLE, "step": "0"}],
        [{**WHOLE, "command": "x"}],
        [{**WHOLE, "command": [3]}],
        [{**WHOLE, "changed": []}],
        [{**WHOLE, "changed": {"a": 3}}],
        [{**WHOLE, "changed": {"a": [3]}}],
        [{**WHOLE, "versions": "2.0"}],
        [{**WHOLE, "machine": 3}],
        [{**WHOLE, "samples_per_step": "many"}],
        [WHOLE, WHOLE],
        [WHOLE, {**WHOLE, "step": 5}, {**WHOLE, "step": 4}],
    ],
)
def test_a_history_that_no_run_writes_is_refused(tmp_path, entries):
    (tmp_path / "result.json").write_text(json.dumps({"status": "finished", "config": {}, "history": entries}))
    with pytest.raises(RecipeError, match=r"result\.json cannot be read: history must be a list of what held"):
        shapes.read_result(tmp_path)


def test_a_history_with_any_values_is_shown_in_short_lines(tmp_path):
    entries = [WHOLE, copy.deepcopy(WHOLE) | {"step": 3, "changed": {"a\nb": ["x" * 500, {"y": ["\x1b[31m"]}]}}]
    (tmp_path / "result.json").write_text(json.dumps({"status": "finished", "config": {}, "history": entries}))
    found = read(tmp_path, Catalogue())
    assert found.status == "finished" and len(found.resumed) < 250
    assert found.resumed.isprintable() and all(line.isprintable() for line in history.lines(found.result))
