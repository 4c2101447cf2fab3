import pytest
import torch

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.distillation.self import BornAgain
from recipes.engine.checkpoint import load_checkpoint
from tests.recipes.run.test_run import stopper

WORDS = ("max_steps=12", "trainer.val_every_n_steps=5", "+augmentation=mixup", "normalization=batch", "optimizer=momentum")
BORN = ("+distillation=self", "distillation.weight=0.7", "distillation.temperature=2")


def best(folder):
    return load_checkpoint(folder.path / "checkpoints" / "best.ckpt")["state_dict"]


def assert_same(first, second):
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_each_generation_is_a_run_taught_by_the_one_before(folders):
    """Bit for bit what a user gets who trains one run after the other."""
    chain = folders("chain").train(*WORDS, *BORN, "distillation.generations=2")
    folders("0").train(*WORDS)
    for number in (1, 2):
        words = [word.replace("self", "logits") for word in BORN]
        folders(str(number)).train(*WORDS, *words, f"distillation.teacher={folders(str(number - 1)).path}")
    assert_same(best(folders("chain")), best(folders("2")))
    assert chain["metrics"] == folders("2").result["metrics"]
    assert chain["phases"] == 3 and chain["steps"] == 36 and chain["phase_begins"] == [0, 12, 24]
    assert any(not torch.equal(value, best(folders("0"))[name]) for name, value in best(folders("chain")).items())


@pytest.mark.parametrize("at", [11, 13, 21])
def test_a_chain_that_is_stopped_goes_on_where_it_was(folders, with_plugin, extra, at):
    whole = folders("whole")
    whole.train(*WORDS, *BORN)
    with_plugin(stopper(extra, at))
    assert folders("run").train(*WORDS, *BORN, "trainer.save_every_n_steps=1")["status"] == "stopped"
    with_plugin()
    folders("run").resume()
    assert_same(best(folders("run")), best(whole))
    assert folders("run").result["metrics"] == whole.result["metrics"]


def test_strength_zero_is_one_training(folder):
    result = folder.train(*WORDS[:1], BORN[0], "distillation.weight=0")
    assert result["phases"] == 1 and result["steps"] == 12


def test_it_asks_for_as_many_steps_as_the_first_generation():
    plugin = BornAgain(2)
    assert plugin.next_phase({"phases": 1, "phase_begins": [0], "steps": 7}).max_steps == 7
    phase = plugin.next_phase({"phases": 2, "phase_begins": [0, 7], "steps": 14})
    assert phase.max_steps == 7 and phase.fresh and phase.name == "generation 3"
    assert plugin.next_phase({"phases": 3, "phase_begins": [0, 7, 14], "steps": 21}) is None
    assert plugin.next_phase({"phases": 1, "phase_begins": [0], "steps": 0}) is None


def test_refuses_what_it_cannot_teach():
    task = Task("", "classification", 3)
    with pytest.raises(Refusal, match="needs a classification task"):
        BornAgain().check(Selection([], Setting((4,), (Task("", "regression", 1),))))
    with pytest.raises(
        RecipeError, match=r"from Python train the first by itself, and the next with LogitDistillation\(FOLDER\)"
    ):
        BornAgain().prepare(Setting((4,), (task,), training_inputs=lambda: iter([])))
    with pytest.raises(RecipeError, match="^generations must be a whole number ≥ 1"):
        BornAgain(0)
