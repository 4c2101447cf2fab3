"""What only `trainer=fsdp` does; that it trains what others train is in tests/sweeps/test_two_processes.py."""

import math

import pytest
import torch
from torch import nn

from plugins.base import Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task, check_selection
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.sharding import blocks, make_strategy
from recipes.run.build import load_module
from tests.command import command, mistake, once
from tests.harness import config_of, fit, weights
from tests.ranks import on_ranks
from tests.recipes.engine.sharded_worker import STATEFUL, WORDS, do_all

TWO_PARTS = ("data.batch_size=8", "trainer.accumulate_grad_batches=2")
FSDP = ("trainer=fsdp", "trainer.devices=2")
OPTIONS = {"strategy": "fsdp", "precision": "32-true", "compile": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes left, after one process had left a checkpoint to go on from."""

    def make(folder):
        fit(config_of(STATEFUL, *WORDS, *TWO_PARTS), folder / "one", 6, copy_at=3)
        on_ranks(2, do_all, folder)

    return once(tmp_path_factory.getbasetemp(), "sharded", make)


@pytest.fixture(scope="module")
def found(folder):
    return torch.load(folder / "found.pt", weights_only=True)


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=2e-4, atol=2e-5)


def test_each_process_keeps_its_part_of_weights_gradients_and_optimizer_state(found):
    for name, (all_of_it, *kept) in found["cut"].items():
        assert kept[0] < all_of_it and len(set(kept)) == 1, name


def test_tensors_come_back_from_their_parts(found):
    assert len(found["tensors"]) == 4 and all(found["tensors"].values())


def test_in_an_evaluation_processes_need_not_keep_in_step(found):
    assert found["evaluation"] == {"equal": 2.0, "cut_again": True}


def test_resumes_bit_for_bit(found):
    assert all(torch.equal(value, found["again"][name]) for name, value in found["whole"].items())
    assert found["metrics"][0] == found["metrics"][1] and math.isfinite(found["metrics"][0]["val/loss"])
    first, second = found["states"]
    assert first.keys() == second.keys() and "averaging/ema" in first
    assert_close(first["averaging/ema"]["average"], second["averaging/ema"]["average"])


def test_goes_on_with_another_number_of_processes(found, folder, tmp_path):
    one = fit(config_of(STATEFUL, *WORDS, *TWO_PARTS), tmp_path, 6, resume=folder / "whole" / "copy.ckpt")
    assert_close(weights(one), found["whole"])
    assert_close(found["from_one"], found["whole"])


def test_checkpoints_hold_whole_tensors(folder):
    config = config_of(STATEFUL, *WORDS)
    for name in ("best", "last"):
        path = folder / "whole" / "checkpoints" / f"{name}.ckpt"
        assert load_module(config, path) is not None
    (optimizer,) = load_checkpoint(folder / "whole" / "copy.ckpt")["optimizer_states"]
    shapes = [parameter.shape for parameter in load_module(config, path).model.parameters()]
    assert [state["exp_avg"].shape for state in optimizer["state"].values()] == shapes


def test_a_second_phase_goes_on_with_the_weights(found):
    phases = found["phases"]
    assert phases["status"] == "finished" and phases["phases"] == 2 and phases["steps"] == 7
    assert math.isfinite(phases["metrics"]["test/loss"])


# ---------------------------------------------------------------------- blocks


def test_blocks_are_the_children_of_containers():
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(2, 3, 3)))
    model = nn.Sequential(nn.Flatten(), nn.ModuleDict({"one": inner, "two": nn.Linear(2, 2)}))
    assert blocks(model) == [inner[0], inner[2][0], model[1]["two"]]
    attention = nn.MultiheadAttention(4, 2)  # takes the weights of its own output layer without calling it
    assert blocks(nn.Sequential(attention, nn.Linear(4, 1)))[0] is attention


def test_what_shares_parameters_is_put_together_with_the_whole():
    model = nn.ModuleDict({"first": nn.Linear(4, 4), "rest": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))})
    model["rest"][1].weight = model["first"].weight
    assert blocks(model) == [model["rest"][0]]
    twice = nn.Linear(2, 2)
    assert blocks(nn.Sequential(nn.Linear(2, 2), nn.Sequential(twice), nn.Sequential(twice)))[1:] == []


# ---------------------------------------------------------------------- refusals


def plugin(**members):
    """A technique of those methods."""
    return type("Some", (Plugin,), {"stage": Stage.DIAGNOSTICS, "group": "test", "option": "some", **members})()


def select(*plugins, sharded=True):
    setting = Setting((3,), (Task("", "classification", 2),))
    check_selection(Selection(plugins, setting, sharded=sharded))


@pytest.mark.parametrize("method", ["penalty", "after_step", "around_pass", "on_train_batch_end", "wrap_optimizer", "combine"])
def test_what_may_see_weights_is_refused_unless_it_says_that_it_is_right(method):
    some = plugin(**{method: lambda self, *_: None})
    select(some, sharded=False)
    with pytest.raises(Refusal, match="test/some needs whole weights .*: type trainer=ddp$"):
        select(some)
    select(plugin(**{method: lambda self, *_: None, "on_shards": True}))


@pytest.mark.parametrize("method", ["transform_model", "transform_batch", "predict", "measure", "state_dict"])
def test_what_sees_no_weights_is_taken_unless_it_says_that_it_is_wrong(method):
    select(plugin(**{method: lambda self, *_: None}))
    with pytest.raises(Refusal, match="trainer=ddp"):
        select(plugin(**{method: lambda self, *_: None, "on_shards": False}))


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        ("precision", "16-mixed", "take bf16-mixed"),
        ("compile", True, "leave one of the two out"),
        ("strategy", "fsdp_cpu_offload", "type trainer=fsdp"),
        ("strategy", "deepspeed_stage_3", "type trainer=fsdp"),
    ],
)
def test_what_the_trainer_cannot_do_with_it(option, value, fix):
    with pytest.raises(RecipeError, match=fix):
        make_strategy({**OPTIONS, option: value})


def test_a_torch_without_it(monkeypatch):
    monkeypatch.delattr("torch.distributed.fsdp.fully_shard")
    with pytest.raises(RecipeError, match="trainer=fsdp needs torch 2.6 or newer, this is .*: type trainer=ddp"):
        make_strategy(OPTIONS)


def test_refused_before_anything_is_trained(tmp_path):
    told = mistake(*FSDP, "trainer.accelerator=cpu", "+regularizer=l2", cwd=tmp_path, forked=True)
    assert "type optimizer.weight_decay=0.0001 optimizer.no_decay=[bias,norm] in its place, or trainer=ddp" in told
    told = mistake(*FSDP, "trainer.accelerator=cpu", "+regularizer=weight_noise", cwd=tmp_path, forked=True)
    assert told.startswith("error: regularizer/weight_noise needs whole weights") and told.endswith("type trainer=ddp")


def test_weight_decay_stands_in_for_the_l2_penalty(tmp_path):
    l2 = fit(config_of(["regularizer/l2"], "regularizer.l2.weight=0.1"), tmp_path / "l2", 4)
    decay = fit(config_of([], "optimizer.weight_decay=0.1", "optimizer.no_decay=[bias,norm]"), tmp_path / "decay", 4)
    assert_close(weights(l2), weights(decay))


# ---------------------------------------------------------------------- commands


def test_help_and_explain(tmp_path):
    told = command("train.py", "--help", "trainer=fsdp", cwd=tmp_path, forked=True).stdout
    assert told.startswith("trainer=fsdp: ") and "trainer.strategy=fsdp" in told
    told = command("train.py", *FSDP, "trainer.accelerator=cpu", "explain=true", cwd=tmp_path, forked=True).stdout
    assert "each step of 32 samples over 2 processes, each of which keeps a part of the weights" in told


@pytest.mark.slow
def test_commands(tmp_path):
    """A sweep of one and two processes, and evaluations on one, as with any other trainer."""
    small = ("trainer.accelerator=cpu", "model=cnn", "model.channels=[4,8]", "logger=[csv,wandb]", "max_epochs=1")
    words = (*small, "data.batch_size=32", "+wrapper=sam", "optimizer=adam")
    sweep = ("-m", "trainer=fsdp", "trainer.devices=1,2", "hydra.sweep.dir=sweep")
    done = command("train.py", *sweep, *words, cwd=tmp_path, forked=True)
    assert done.returncode == 0
    runs = [tmp_path / "sweep" / name for name in ("0", "1")]
    for path in runs:
        assert len(list((path / "wandb").glob("offline-run-*"))) == 1
        assert (path / "train.log").read_text().count("started: ") == 1
    one, two = (load_checkpoint(path / "checkpoints" / "last.ckpt")["state_dict"] for path in runs)
    assert_close(one, two)  # with a batch that has the same samples in all
    told = [
        command("evaluate.py", str(path), "trainer=default", "trainer.accelerator=cpu", cwd=tmp_path, forked=True).stdout
        for path in runs
    ]
    assert all(text.count("loss") == 1 for text in told)
