"""Runs that a technique gives up: their status, and what is left of them."""

import json

import pytest

from plugins.errors import RecipeError


def test_a_run_that_misses_one_is_given_up_and_one_that_does_not_goes_on(folders):
    words = ("+stopping=milestones", "stopping.metric=val/acc", "max_steps=60", "trainer.val_every_n_steps=20")
    whole = folders("whole").train("max_steps=60", "trainer.val_every_n_steps=20")
    good = folders("good").train(*words, "stopping.reach={20:0.1,40:0.2}")
    assert good["status"] == "finished" and good["metrics"] == whole["metrics"]
    bad = folders("bad").train(*words, "stopping.reach={20:0.1,30:0.999}")
    assert bad["status"] == "pruned" and bad["pruned_at"] == 40 and bad["steps"] == 40
    assert "val/acc had not reached 0.999 by step 30" in bad["reason"]
    assert json.loads((folders("bad").path / "result.json").read_text())["status"] == "pruned"


def test_the_validation_behind_the_last_step_is_looked_at_too(folders):
    words = ("+stopping=milestones", "stopping.metric=val/acc", "max_steps=30", "trainer.val_every_n_steps=20")
    good = folders("good").train(*words, "stopping.reach={25:0.1}")
    assert good["status"] == "finished" and good["best_step"] in (20, 30)
    bad = folders("bad").train(*words, "stopping.reach={20:0.1,25:0.999}")
    assert (bad["status"], bad["pruned_at"], bad["steps"]) == ("pruned", 30, 30)
    assert "val/acc had not reached 0.999 by step 25" in bad["reason"] and not any("test/" in name for name in bad["metrics"])
    first = folders("first").train(*words, "trainer.val_every_n_steps=40", "stopping.reach={25:0.999}")
    assert (first["status"], first["pruned_at"]) == ("pruned", 30)  # it is the only one


def test_the_direction_must_be_known(folders):
    with pytest.raises(RecipeError, match=r"stopping.mode=max or min"):
        folders("unknown").train("+stopping=milestones", "stopping.metric=val/what", "stopping.reach={1:0.5}")
    with pytest.raises(RecipeError, match="no metric of this run"):
        folders("none").train(
            "+stopping=milestones",
            "stopping.metric=val/f1",
            "stopping.reach={1:0.5}",
            "max_steps=2",
            "trainer.val_every_n_steps=1",
        )
