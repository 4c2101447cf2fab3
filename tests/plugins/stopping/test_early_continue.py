import copy

import pytest
import torch
from torch.nn import functional

from plugins.base import Refusal
from plugins.sites import evaluation_mode
from plugins.stopping.early import Search
from plugins.stopping.early_continue import EarlyContinue
from tests.harness import build, config_of
from tests.plugins.stopping.scripted import WORDS, assert_goes_on, drawn, final, of_a_rank, same, scripted
from tests.ranks import on_ranks
from tests.recipes.run.test_run import measure

CONTINUE = ("+stopping=early_continue", *WORDS, "optimizer.lr=0.1")  # reaches ε wherever θ* is
TRAINING = 120  # samples


def measuring(errors):
    """A curve, and J(θ*, training samples) measured anew as the second phase begins."""

    class Measuring(scripted(errors)):
        losses = []

        def on_train_start(self, trainer, module):
            super().on_train_start(trainer, module)
            if module.phase["index"]:
                split = trainer.train_dataloader.split
                assert len(split) == TRAINING + 144
                with evaluation_mode(module), torch.no_grad():
                    outputs = module.model(module.inputs_of(split.x[:TRAINING]))
                self.losses.append(float(functional.cross_entropy(outputs, split.targets[""][:TRAINING].long())))

    return Measuring


def test_goes_on_from_the_best_weights_until_the_loss_is_that_of_the_stop(folder, with_plugin):
    """Algorithm 7.3, step by step."""
    errors, i_star, stop = drawn()
    script = measuring(errors)
    with_plugin(script)
    result = folder.train(*CONTINUE, "stopping.max_steps=400")
    first, second = result["phase_results"]
    assert (first["steps"], first["best_step"], second["begins"], second["name"]) == (stop, i_star, stop, "continue")
    assert same(script.starts[1], script.seen[0, i_star])  # θ*
    (epsilon,) = script.losses
    assert second["until"] == {"val/loss": pytest.approx(epsilon, rel=1e-5)}
    losses = {int(row["step"]): float(row["val/loss"]) for row in folder.rows if "val/loss" in row}
    assert losses[i_star] > epsilon
    *before, last = [losses[step] for step in sorted(losses) if step > stop]
    assert all(loss >= epsilon for loss in before) and last < epsilon and second["steps"] < 400
    assert second["steps"] % 3 == 0 and result["best_step"] == result["steps"] == stop + second["steps"]
    assert same(final(folder), final(folder, "last"))
    assert result["stopped_early"] and second["trained_on_validation"] and not second["stopped_early"]


@pytest.mark.parametrize("most", [None, 4])
def test_does_not_go_on_for_ever(folder, with_plugin, monkeypatch, most):
    errors, i_star, stop = drawn()
    with_plugin(scripted(errors))
    monkeypatch.setattr("recipes.engine.evaluation.Evaluation.of_training", lambda self, limit: {"loss": 0.0})  # never reached
    result = folder.train(*CONTINUE, f"stopping.max_steps={'null' if most is None else most}")
    assert result["phase_results"][1]["steps"] == (most or i_star) and result["steps"] == stop + (most or i_star)
    assert "test/entropy" in measure(folder, "+inference=mc_dropout")  # once it is trained


def test_there_may_be_nothing_left_to_do():
    plugin = EarlyContinue(max_steps=7)
    plugin.search, plugin.validation_loss, plugin.training_loss = Search(0.5, 12, 2), 0.5, 0.6
    assert plugin.next_phase({}) is None
    plugin.training_loss = 0.4
    phase = plugin.next_phase({})
    assert (phase.max_steps, phase.fresh, phase.all_data, phase.stop_below) == (7, False, True, ("val/loss", 0.4))
    plugin.max_steps = None
    assert plugin.next_phase({}).max_steps == 12


def test_the_validation_loss_of_the_best_weights_is_kept():
    plugin, other = EarlyContinue(), EarlyContinue()
    plugin.validation_loss = 0.25
    other.load_state_dict(copy.deepcopy(plugin.state_dict()))
    assert other.validation_loss == 0.25


@pytest.mark.parametrize("place", ["first", "end", "second"])
def test_a_run_that_is_stopped_goes_on_in_its_phase(folders, with_plugin, extra, place):
    errors, _, stop = drawn()
    at = {"first": stop // 2, "end": stop - 1, "second": stop + 4}[place]
    words = (*CONTINUE, "stopping.max_steps=20", "+averaging=ema", "averaging.decay=0.8")
    assert_goes_on(words, at, folders, with_plugin, extra, scripted(errors))


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (["averaging/swa"], "averages from a share of all steps on"),
        (["distillation/self"], "both ask for the next phase of the run"),
        (["inference/temperature"], "what is found on the validation split would be found on samples"),
        (
            ["inference/mc_dropout", "regularizer/dropout"],
            "compares the loss of validation samples with that of training samples",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(others, words):
    with pytest.raises(Refusal, match=words):
        build(config_of(["stopping/early_continue", *others]))


@pytest.mark.slow
def test_processes_that_keep_parts_of_the_weights_decide_alike(folders, with_plugin, tmp_path):
    errors, i_star, stop = drawn()
    words = [*CONTINUE, "stopping.max_steps=400"]
    found = on_ranks(2, of_a_rank, tmp_path / "two", [*words, "trainer=fsdp"], errors)
    with_plugin(scripted(errors))
    halves = [word.replace("data.batch_size=32", "data.batch_size=16") for word in words]
    one = folders("one").train(*halves, "trainer.accumulate_grad_batches=2")["phase_results"]
    for first, second in found:
        assert (first["steps"], first["best_step"]) == (one[0]["steps"], one[0]["best_step"]) == (stop, i_star)
        assert second["until"]["val/loss"] == pytest.approx(one[1]["until"]["val/loss"], rel=1e-3)
        assert abs(second["steps"] - one[1]["steps"]) <= 3  # the loss may come that close to ε
    assert found[0] == found[1]
