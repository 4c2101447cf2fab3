import shutil

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.init.from_run import FromRunInit, match
from recipes.run.weights import load_weights
from tests.command import command, mistake

WORDS = (
    "model=mlp",
    "model.hidden=[8]",
    "logger=[]",
    "trainer.progress=false",
    "trainer.accelerator=cpu",
    "data.batch_size=256",
)


def net(classes=3):
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, classes))


def started(model, tensors, **further):
    plugin = FromRunInit("there")
    plugin.prepare(Setting((4,), (), training_inputs=lambda: iter(()), load_weights=lambda place: tensors, **further))
    plugin.transform_model(model)
    return plugin


def test_takes_what_fits_and_tells_the_rest():
    source, model = net(7), net()
    source[1].running_mean.normal_()
    head = {name: value.clone() for name, value in model[3].state_dict().items()}
    plugin = started(model, {**source.state_dict(), "further.weight": torch.ones(2)})
    for layer in (0, 1):
        assert all(torch.equal(value, source[layer].state_dict()[name]) for name, value in model[layer].state_dict().items())
    assert all(torch.equal(value, head[name]) for name, value in model[3].state_dict().items())
    assert plugin.remarks == [
        "7 of 9 tensors (46 of 64 numbers) are those of there",
        "as drawn, of another shape or kind: 3.weight (7, 5) there, (3, 5) here; 3.bias (7,) there, (3,) here",
        "not used, no place here: further.weight",
    ]


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.model.", "module.model.model.", "_orig_mod."])
def test_whatever_stood_around_the_model(prefix):
    source, model = net(), net()
    around = {"calibrated.scale": torch.ones(1), "model.shift": torch.ones(4)} if "model.model" in prefix else {}
    plugin = started(model, {**around, **{prefix + name: value for name, value in source.state_dict().items()}})
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    assert plugin.remarks == ["9 of 9 tensors (64 of 64 numbers) are those of there"]


def test_a_model_that_calls_a_part_of_it_model():
    wanted = {"model.weight": torch.ones(2), "head.weight": torch.ones(3)}
    for prefix in ("", "model."):
        found = match({prefix + name: 2 * value for name, value in wanted.items()}, wanted)
        assert found.taken.keys() == wanted.keys() and not found.unused and not found.missing


def test_whole_numbers_are_no_weights():
    found = match({"a": torch.ones(2, dtype=torch.long)}, {"a": torch.ones(2), "b": torch.ones(1)})
    assert not found.taken and found.misfits == {"a": ((2,), (2,))} and found.missing == ["b"]


@pytest.mark.parametrize("setting", [{"restored": True}, {"training_inputs": None}], ids=["goes on", "evaluated"])
def test_what_has_a_checkpoint_needs_no_source(setting):
    model = net()
    before = model[0].weight.clone()
    plugin = FromRunInit("nowhere")
    plugin.prepare(Setting((4,), (), load_weights=load_weights, **{"training_inputs": lambda: iter(()), **setting}))
    plugin.transform_model(model)
    assert torch.equal(model[0].weight, before) and not plugin.remarks


def test_refuses_what_it_cannot_start_from():
    with pytest.raises(RecipeError, match=r"no weight that fits Sequential .* begins with 0.weight \(5, 4\), .* same model"):
        started(net(), {"0.weight": torch.ones(9, 9), "1.num_batches_tracked": torch.tensor(3)})
    with pytest.raises(RecipeError, match="3.bias has numbers that are not finite"):
        started(net(), {**net().state_dict(), "3.bias": torch.full((3,), torch.nan)})
    plugin = FromRunInit("there")
    plugin.prepare(Setting((4,), (), training_inputs=lambda: iter(())))
    with pytest.raises(RecipeError, match="give RecipeModule.build a Setting with load_weights"):
        plugin.transform_model(net())
    with pytest.raises(Refusal, match="type init.folder=FOLDER"):
        FromRunInit().check(Selection([], Setting((4,), (Task("", "classification", 3),))))
    with pytest.raises(RecipeError, match="^folder must be the folder of a trained run, or a file of weights or null"):
        FromRunInit("")


# ------------------------------------------------------------------ with folders


def inner(checkpoint):
    return {name.removeprefix("model.model."): value for name, value in checkpoint["state_dict"].items()}


def test_a_run_starts_from_another_and_goes_on_without_it(tmp_path):
    """Averaged weights, as the test used them; resumed after the source is gone it ends as if it had never stopped."""
    done = command("train.py", *WORDS, "+averaging=ema", "max_steps=3", "hydra.run.dir=first", cwd=tmp_path, forked=True)
    assert done.returncode == 0
    words = ("init=from_run", "init.folder=first", "trainer.save_every_n_steps=1", "data.split_seed=1")
    begun = command(
        "train.py", *WORDS, *words, "optimizer.lr=0", "max_steps=1", "hydra.run.dir=still", cwd=tmp_path, forked=True
    )
    assert "init/from_run: 4 of 4 tensors" in begun.stdout and "are those of first" in begun.stdout
    told = "init/from_run: first was trained on another split of this data: it may know samples that are held out here"
    assert told in " ".join(begun.stdout.split())
    best, still = (torch.load(tmp_path / name / "checkpoints" / "best.ckpt") for name in ("first", "still"))
    assert inner(still).keys() >= {"1.weight", "3.bias"}
    assert all(torch.equal(inner(best)[name], value) for name, value in inner(still).items() if name[0].isdigit())
    for folder, steps in (("whole", 4), ("stopped", 2)):
        run = (*WORDS, *words, f"max_steps={steps}", f"hydra.run.dir={folder}")
        assert command("train.py", *run, cwd=tmp_path, forked=True).returncode == 0
    shutil.rmtree(tmp_path / "first")
    assert command("train.py", "resume=stopped", "max_steps=4", cwd=tmp_path, forked=True).returncode == 0
    whole, found = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("whole", "stopped"))
    assert all(torch.equal(found[name], value) for name, value in whole.items())
    assert command("evaluate.py", "stopped", cwd=tmp_path, forked=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("init.folder=nowhere",), "nowhere is not there: give the folder of a run"),
        (("init.folder=empty",), "empty is no run"),
        ((), "type init.folder=FOLDER"),
    ],
    ids=["not there", "no run", "none"],
)
def test_a_mistake_is_one_line(words, told, tmp_path):
    (tmp_path / "empty").mkdir()
    assert told in mistake("init=from_run", *words, *WORDS, cwd=tmp_path, forked=True)
