"""Over all options of conf/, with tokens and with class maps: each trains, or is refused in one line that names it, before the first batch."""

import warnings

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.run import train
from tests import harness
from tests.forms import IGNORED, maps, tokens

FORMS = {
    "tokens": (
        *("data.input=[tokens,mask]", "model=transformer", "model.width=8", "model.heads=2", "model.layers=1", "model.hidden=8"),
        "preprocessing=none",
    ),
    "maps": ("model=fcn", "model.channels=[4,4]", "loss=cross_entropy", f"loss.ignore_index={IGNORED}"),
}
SMALL = (
    *("data=npz", "data.batch_size=16", "max_steps=3", "optimizer=momentum", "optimizer.lr=0.02", "logger=[]"),
    *("trainer.progress=false", "trainer.accelerator=cpu"),
)
WITHOUT = ("data", "recipe", "hydra", "logger", "trainer")  # say nothing of a batch
REFUSED = {
    "tokens": {
        *("adversarial/fgsm", "adversarial/pgd", "distillation/logits", "preprocessing/center", "preprocessing/standardize"),
        *(f"augmentation/{name}" for name in ("crop", "cutmix", "cutout", "horizontal_flip", "mixup", "randaugment")),
        *("regularizer/dropblock", "loss/mse", "metric/mae", "metric/r2", "metric/rmse"),
        *("model/cnn", "model/fcn", "model/linear", "model/mlp", "model/resnet18", "model/torchvision"),
        "normalization/batch",
    },
    "maps": {
        *("adversarial/fgsm", "adversarial/pgd", "distillation/logits", "augmentation/randaugment", "sampling/balanced"),
        *("loss/mse", "metric/mae", "metric/r2", "metric/rmse", "regularizer/stochastic_depth"),
        *("model/cnn", "model/linear", "model/mlp", "model/resnet18", "model/torchvision", "model/transformer"),
    },
}


def every():
    """All options of the groups that a batch or its model sees."""
    groups = Catalogue().groups
    return sorted(f"{group}/{option}" for group, found in groups.items() if group not in WITHOUT for option in found)


def words_of(form, name, folder):
    """What a user types for a form of data and an option."""
    np.savez(folder / f"{form}.npz", **{"tokens": tokens, "maps": maps}[form]())
    group, option = name.split("/")
    beside = {"inference/mc_dropout": ["+regularizer=dropout"]}.get(name, [])
    word = harness.catalogue().spelling(group, f"[{option}]" if harness.is_many(group) else option)
    taken = [word for word in (*SMALL, *FORMS[form]) if word.partition("=")[0].partition(".")[0] != group]
    further = [f"distillation.teacher={harness.TRAINED}"] if name == "distillation/logits" else []
    return [*taken, f"data.path={folder / f'{form}.npz'}", word, *beside, *further]


def outcome(form, name, folder):
    """The result of a short run, or the refusal."""
    words = words_of(form, name, folder)
    run = folder / "run"
    run.mkdir()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return train.train(finish(Catalogue(), compose(words), words), run, words)
    except RecipeError as error:
        assert not any(run.iterdir()), "something was done before the refusal"
        return error


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", every())
def test_trains_or_is_refused_in_one_line(form, name, tmp_path):
    found = outcome(form, name, tmp_path)
    if name in REFUSED[form]:
        assert isinstance(found, RecipeError), "it trains now: leave it out of REFUSED"
        group, option = name.split("/")
        told = str(found).lower().replace("_", "")
        assert "\n" not in told and (option.replace("_", "") in told or group in told)
    else:
        assert not isinstance(found, RecipeError), found
        assert found["status"] == "finished" and found["steps"] == 3
        assert all(np.isfinite(value) for value in found["metrics"].values())
        assert 0 <= found["metrics"].get("test/acc", 0) <= 1
    assert torch.get_default_dtype() == torch.float32
