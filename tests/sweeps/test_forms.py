"""Over all options of conf/, with tokens, points, tables, class maps, several labels or numbers a sample: each trains, or is refused in one line that names it, before the first batch."""

import json
import warnings

import pytest
import torch

from plugins.base import RecipeError
from recipes.check.covering import gather
from recipes.check.forms import (
    FORMS,
    SAY_NOTHING_OF_BATCHES,
    SMALL,
    beside_form,
    expect_finished,
    expect_told,
    outcome,
    outcome_of,
    saved,
)
from recipes.check.selections import everything
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.run import train
from recipes.run.evaluate import evaluate
from tests.command import command

OF_STEPS, OF_COLUMNS = ("spec_augment", "speed", "time_shift"), ("feature_noise", "swap_noise")
IMAGES = {  # augmentations of images
    f"augmentation/{name}"
    for name in (
        *("alternating_flip", "crop", "cutmix", "cutout", "elastic", "gaussian_noise", "horizontal_flip", "randaugment"),
        *("random_erasing", "resized_crop", "resizemix", "rotate", "translate", "vertical_flip", "zoom"),
        *("autoaugment", "augmix", "blur", "color_jitter", "grayscale", "solarize", "three_augment", "trivial_augment"),
    )
}
OF_MORE_THAN_COLUMNS = {  # what a table has not
    *(*IMAGES, "augmentation/spec_augment", "init/dirac", "normalization/instance", "preprocessing/width"),
    *(f"model/{name}" for name in ("cnn", "dgcnn", "fcn", "pointnet", "resnet18", "resnet34", "resnet50", "rnn", "timm")),
    *(f"model/{name}" for name in ("torchvision", "transformer", "wide_resnet")),
}
REFUSED = {  # options, and groups of which each is
    "tokens": {
        *("inference/ensemble", "inference/soup", "inference/tta", "guard/precise_norm"),
        "curriculum/progressive_resizing",
        *(f"augmentation/{name}" for name in (*OF_STEPS, *OF_COLUMNS)),
        *("adversarial", "distillation/features", "distillation/logits", "preprocessing/center", "preprocessing/standardize"),
        *(*IMAGES, "augmentation/mixup"),
        *("regularizer/dropblock", "metric/top_k_accuracy", "metric/mae", "metric/r2", "metric/rmse"),
        *(f"model/{name}" for name in ("cnn", "dgcnn", "fcn", "linear", "mlp", "pointnet", "polynomial", "resnet18")),
        *(f"model/{name}" for name in ("resnet34", "resnet50", "timm", "torchvision", "wide_resnet")),
        *("preprocessing/minmax", "preprocessing/pretrained", "preprocessing/whiten", "preprocessing/width", "init/dirac"),
        *(f"normalization/{name}" for name in ("batch", "ghost_batch", "group", "instance", "weight_standardization")),
        *(f"loss/{name}" for name in ("huber", "mae", "quantile")),
        *(f"regularizer/{name}" for name in ("dropcluster", "input_dropout", "jacobian", "patch_dropout", "spatial_dropout")),
    },
    "steps": {
        *("inference/ensemble", "inference/soup", "inference/tta", "guard/precise_norm"),
        "curriculum/progressive_resizing",
        *(f"augmentation/{name}" for name in OF_COLUMNS),
        *("adversarial", "distillation/features", "distillation/logits", "init/dirac"),
        *(f"preprocessing/{name}" for name in ("pretrained", "whiten", "width")),
        *(f"normalization/{name}" for name in ("batch", "ghost_batch", "group", "instance", "weight_standardization")),
        *(*IMAGES, "augmentation/mixup"),
        *("regularizer/dropblock", "metric/top_k_accuracy", "metric/mae", "metric/r2", "metric/rmse"),
        *(f"model/{name}" for name in ("cnn", "dgcnn", "fcn", "linear", "mlp", "polynomial", "resnet18")),
        *(f"model/{name}" for name in ("resnet34", "resnet50", "timm", "torchvision", "wide_resnet")),
        *(f"loss/{name}" for name in ("huber", "mae", "quantile")),
        *(f"regularizer/{name}" for name in ("dropcluster", "patch_dropout", "spatial_dropout")),
    },
    "maps": {
        *("inference/ensemble", "inference/soup"),
        *(f"augmentation/{name}" for name in ("autoaugment", "augmix", "speed", "time_shift", "trivial_augment", *OF_COLUMNS)),
        *(
            "adversarial",
            "distillation/features",
            "distillation/logits",
            "augmentation/randaugment",
            "augmentation/resizemix",
            "sampling/balanced",
            "sampling/weighted",
            "loss/hinge",
        ),
        *("metric/top_k_accuracy", "metric/mae", "metric/r2", "metric/rmse", "regularizer/stochastic_depth"),
        "preprocessing/width",
        *(f"model/{name}" for name in ("cnn", "dgcnn", "linear", "mlp", "pointnet", "polynomial", "resnet18", "resnet34")),
        *(f"model/{name}" for name in ("resnet50", "rnn", "timm", "torchvision", "transformer", "wide_resnet")),
        *(f"loss/{name}" for name in ("huber", "mae", "quantile")),
        *(f"regularizer/{name}" for name in ("dropcluster", "patch_dropout")),
    },
    "labels": {
        *("inference/ensemble", "inference/soup"),
        "curriculum/progressive_resizing",
        "augmentation/augmix",
        *(
            "distillation/features",
            "distillation/logits",
            "distillation/self",
            "inference/temperature",
            "sampling/balanced",
            "sampling/weighted",
            "regularizer/class_weights",
        ),
        *(f"loss/{name}" for name in ("cross_entropy", "hinge", "huber", "mae", "mse", "quantile")),
        *(f"metric/{name}" for name in ("balanced_accuracy", "calibration_error", "cohen_kappa", "mae", "r2", "rmse")),
        "metric/top_k_accuracy",
        *(f"model/{name}" for name in ("dgcnn", "fcn", "pointnet", "timm", "torchvision", "transformer")),
        "regularizer/stochastic_depth",
        *(f"regularizer/{name}" for name in ("dropcluster", "patch_dropout")),
    },
    "table": {
        *("inference/ensemble", "inference/soup", "inference/tta"),
        "curriculum/progressive_resizing",
        *OF_MORE_THAN_COLUMNS,
        *("distillation/features", "distillation/logits", "regularizer/dropblock", "regularizer/stochastic_depth"),
        *(f"loss/{name}" for name in ("huber", "mae", "quantile")),
        *(f"metric/{name}" for name in ("mae", "r2", "rmse", "top_k_accuracy")),
        *(f"regularizer/{name}" for name in ("dropcluster", "patch_dropout", "spatial_dropout")),
    },
    "numbers": {
        *("inference/ensemble", "inference/soup", "inference/tta"),
        "curriculum/progressive_resizing",
        *OF_MORE_THAN_COLUMNS,
        "diagnostics/calibration",
        *(
            "adversarial/trades",
            "distillation/features",
            "distillation/logits",
            "distillation/self",
            "inference/temperature",
            "sampling/balanced",
            "sampling/weighted",
        ),
        *(f"loss/{name}" for name in ("bce", "cross_entropy", "focal", "hinge", "poly1")),
        *(f"metric/{name}" for name in ("auroc", "average_precision", "balanced_accuracy", "calibration_error", "cohen_kappa")),
        *(f"metric/{name}" for name in ("f1", "precision", "recall", "top_k_accuracy")),
        *(f"regularizer/{name}" for name in ("class_weights", "dropblock", "label_smoothing", "stochastic_depth")),
        *(
            f"regularizer/{name}"
            for name in ("confidence_penalty", "dropcluster", "patch_dropout", "r_drop", "spatial_dropout")
        ),
    },
    "points": {
        *("inference/ensemble", "inference/soup", "inference/tta", "guard/precise_norm"),
        "curriculum/progressive_resizing",
        *(f"augmentation/{name}" for name in (*OF_STEPS, *OF_COLUMNS)),
        *("adversarial", "distillation/features", "distillation/logits", "preprocessing/whiten", "preprocessing/width"),
        *(f"normalization/{name}" for name in ("batch", "ghost_batch", "group", "instance", "layer", "rms")),
        "normalization/weight_standardization",
        *(*IMAGES, "augmentation/mixup"),
        *(f"loss/{name}" for name in ("huber", "mae", "quantile")),
        *(f"metric/{name}" for name in ("mae", "r2", "rmse", "top_k_accuracy")),
        *(
            f"model/{name}"
            for name in ("cnn", "fcn", "linear", "mlp", "polynomial", "resnet18", "resnet34", "resnet50", "timm")
        ),
        *("model/torchvision", "model/wide_resnet"),
        *("preprocessing/pretrained", "regularizer/dropblock", "regularizer/stochastic_depth"),
        "regularizer/patch_dropout",
    },
}


SHARES = 4


def every():
    """All options of the groups that a batch or its model sees."""
    groups = Catalogue().groups
    return sorted(
        f"{group}/{option}" for group, found in groups.items() if group not in SAY_NOTHING_OF_BATCHES for option in found
    )


def is_refused(form, name):
    return bool({name, name.split("/")[0]} & REFUSED[form])


def runs_of(form):
    """Selections in which each option stands that is not refused; a model is tried by itself, as the form has its own."""
    options, accepted = everything().options, [name for name in every() if not is_refused(form, name)]
    some = [name for name in accepted if name in options.names and not name.startswith("model/")]
    return [*gather(options, some), *((name,) for name in accepted if name not in some)]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "name"), [(form, name) for form in FORMS for name in every() if is_refused(form, name)])
def test_is_refused_in_one_line(form, name, tmp_path):
    found = outcome_of(form, name, tmp_path)
    assert isinstance(found, RecipeError), "it trains now: leave it out of REFUSED"
    expect_told(name, found)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("form", FORMS)
def test_every_option_that_is_not_refused_trains(form, share, tmp_path):
    for number, names in enumerate(runs_of(form)[share::SHARES]):
        expect_trained(form, names, tmp_path / str(number))
    assert torch.get_default_dtype() == torch.float32


def expect_trained(form, names, folder):
    """A selection trains; where it is refused together on this form, each of its options trains by itself."""
    folder.mkdir()
    found = outcome(form, beside_form(names), folder) if len(names) > 1 else outcome_of(form, *names, folder)
    if isinstance(found, RecipeError) and len(names) > 1:
        for number, name in enumerate(beside_form(names)):
            expect_trained(form, [name], folder / str(number))
        return
    assert not isinstance(found, RecipeError), f"{', '.join(names)}: {found}"
    expect_finished(found)


BESIDE = {
    "labels": (
        "+augmentation=[crop,cutmix,mixup]",
        "+regularizer=[dropout,label_smoothing]",
        "+inference=mc_dropout",
        "+metric=f1",
    ),
    "tokens": ("+regularizer=[dropout,label_smoothing]", "+averaging=ema", "+inference=mc_dropout", "+metric=f1"),
    "table": (
        "+augmentation=[feature_noise,mixup,swap_noise]",
        "+regularizer=[dropout,label_smoothing]",
        "+inference=mc_dropout",
        "+metric=f1",
    ),
    "numbers": ("+augmentation=mixup", "+regularizer=dropout", "+averaging=ema", "+inference=mc_dropout", "+metric=r2"),
    "points": ("+regularizer=label_smoothing", "+averaging=ema", "+clipping=norm", "+metric=f1"),
    "steps": (
        "+augmentation=[spec_augment,speed,time_shift]",
        "+regularizer=[dropout,label_smoothing]",
        "+averaging=ema",
        "+clipping=norm",
        "+metric=f1",
    ),
    "maps": ("+augmentation=[crop,horizontal_flip,cutmix,mixup]", "+regularizer=[class_weights,label_smoothing]", "+metric=f1"),
}


def trained(form, folder, *words, further=()):
    """What a short run with several techniques has left."""
    words = [*SMALL, *FORMS[form].words, saved(form, folder), "max_steps=6", *BESIDE[form], *words]
    words = [*{word.partition("=")[0]: word for word in words}.values()]  # of each key what comes last
    run = folder / "_".join(["run", *(word.partition("=")[0] + word[-4:] for word in further)])
    run.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train.train(finish(Catalogue(), compose(words), words), run, words), run


def model_of(run):
    """The weights of the last step."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("form", FORMS)
def test_is_resumed_bit_for_bit_and_evaluated_again(form, tmp_path):
    whole, run = trained(form, tmp_path, "data.batch_size=16")
    first, again = trained(form, tmp_path, "data.batch_size=16", "max_steps=3", further=["x=half"])
    assert first["steps"] == 3
    config = first["config"] | {"resume": str(again), "max_steps": 6}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resumed = train.train(config, again, ["resume"])
    assert resumed["steps"] == 6 and resumed["metrics"] == whole["metrics"]
    before, after = model_of(run), model_of(again)
    assert all(torch.equal(before[name], after[name]) for name in before)
    found = evaluate(run, whole["config"], [])
    assert found["metrics"] == pytest.approx({name: value for name, value in whole["metrics"].items() if "test/" in name})


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_compiled(form, tmp_path):
    plain, _ = trained(form, tmp_path)
    compiled, _ = trained(form, tmp_path, "trainer.compile=true", further=["x=comp"])
    assert compiled["metrics"] == pytest.approx(plain["metrics"], rel=1e-3, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_two_processes_train_what_one_does_in_two_parts(form, tmp_path):
    words = [*SMALL, *FORMS[form].words, saved(form, tmp_path), *BESIDE[form], "max_steps=4"]
    words = [word for word in words if word != "max_steps=3" and not word.startswith("data.batch_size")]
    results = {}
    for name, further in (
        ("parts", ("data.batch_size=8", "trainer.accumulate_grad_batches=2")),
        ("ddp", ("data.batch_size=16", "trainer=ddp", "trainer.devices=2")),
        ("fsdp", ("data.batch_size=16", "trainer=fsdp", "trainer.devices=2")),
    ):
        command("train.py", *words, *further, f"hydra.run.dir={tmp_path / name}", cwd=tmp_path, forked=True)
        results[name] = json.loads((tmp_path / name / "result.json").read_text())["metrics"]
    if form == "points":  # batch norm counts two parts as two batches in its running statistics
        results = {name: {key: value for key, value in found.items() if key == "train/loss"} for name, found in results.items()}
    for name in ("ddp", "fsdp"):
        assert results["parts"] and results[name] == pytest.approx(results["parts"], rel=1e-5, abs=1e-6)
