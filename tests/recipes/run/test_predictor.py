"""What a trained run predicts is what its own test has counted, for every kind of data and inference."""

import io

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from plugins.base import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.changing import read_run
from recipes.data.base import Data
from recipes.data.log_mel import LogMel
from recipes.data.split import Split
from recipes.run.build import build_data, load_run
from recipes.run.evaluate import measure
from recipes.run.predict import as_npz, predict
from recipes.run.predictor import Predictor, load
from tests.command import ROOT
from tests.recordings import RATE, takes, write

X, Y = load_digits(return_X_y=True)
IMAGES = (X.reshape(-1, 1, 8, 8) / 16).astype("float32")
FEW = 400

TRAINED = {
    "plain": (),
    "averaged weights": ("+averaging=ema",),
    "mc_dropout": ("+regularizer=dropout", "+inference=mc_dropout", "inference.samples=3"),
    "temperature": ("+inference=temperature",),
    "64 bits": ("trainer.precision=64-true",),
    "hinge": ("loss=hinge",),
    "batch norm": ("model=cnn", "normalization=batch"),
}


def test_split(folder):
    """The inputs and targets of the test split of a run."""
    data = build_data(read_run(Catalogue(), folder.path))
    data.setup()
    return data.splits["test"].fetch(torch.arange(len(data.splits["test"])))


test_split.__test__ = False


@pytest.mark.parametrize("words", TRAINED.values(), ids=TRAINED)
def test_classes_are_those_that_the_test_has_counted(folder, words):
    folder.train("max_steps=40", *words)
    found = load(folder.path).predict_data(elsewhere=False)
    p, (_, targets) = found.of(), test_split(folder)
    metrics = folder.result["metrics"]
    torch.testing.assert_close(p.sum(1), torch.ones(len(p), dtype=p.dtype))
    assert float((p.argmax(1) == targets[""]).float().mean()) == pytest.approx(metrics["test/acc"], abs=1e-6)
    if "loss=hinge" not in words:
        assert float(F.nll_loss(p.double().log(), targets[""])) == pytest.approx(metrics["test/loss"], abs=1e-5)
    assert found.labels() == p.argmax(1).tolist() and len(found.ids) == len(p)


def test_the_rows_of_the_test_split_are_named_by_their_place_in_the_data(folder):
    folder.train("max_steps=5")
    found = load(folder.path).predict_data(elsewhere=False)
    x, _ = test_split(folder)
    everything = torch.from_numpy(load_digits().images).float() / 16
    torch.testing.assert_close(
        x[:, 0].float() / (1 if x.is_floating_point() else 255), everything[[int(name) for name in found.ids]]
    )


def file_of(path, **arrays):
    np.savez(path, **arrays)
    return ("data=npz", f"data.path={path}", "data.test=0.5")


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_outputs_of_16_bits_become_probabilities_of_32(folder, tmp_path, precision):
    """So a file holds them, and of several labels those are told that the test has decided for."""
    labels = np.stack([Y % 2 == 0, Y < 5, Y > 6], 1)[:FEW]
    words = file_of(tmp_path / "a.npz", x=X[:FEW].astype("float32"), y=labels)
    folder.train("max_steps=10", "model=linear", "loss=bce", f"trainer.precision={precision}", *words)
    found, (_, targets) = load(folder.path).predict_data(elsewhere=False), test_split(folder)
    assert found.of().dtype == torch.float32 and not torch.equal(found.of(), found.of().bfloat16().float())
    right = (found.there() == targets[""].bool()).double().mean()
    assert float(right) == pytest.approx(folder.result["metrics"]["test/acc"], abs=1e-6)
    with np.load(io.BytesIO(as_npz(found))) as file:
        np.testing.assert_array_equal(file["probability_y"], found.of())
        np.testing.assert_array_equal(file["y"], found.there())


def noisy(columns, seed=0):
    weights = np.random.default_rng(seed).normal(size=(64, columns))
    return (100 + X[:FEW] @ weights).astype("float32")


def test_several_numbers_in_their_units(folder, tmp_path):
    folder.train("max_steps=40", *file_of(tmp_path / "a.npz", x=X[:FEW].astype("float32"), y=noisy(2)))
    predicted, (_, targets) = load(folder.path).predict_data(elsewhere=False).of(), test_split(folder)
    assert predicted.shape == targets[""].shape and abs(float(predicted.mean()) - 100) < 60
    assert float(F.mse_loss(predicted, targets[""])) == pytest.approx(folder.result["metrics"]["test/loss"], rel=1e-5)


def test_several_targets(folder, tmp_path):
    words = file_of(tmp_path / "a.npz", x=X[:FEW].astype("float32"), digit=Y[:FEW], size=noisy(1))
    folder.train("max_steps=40", *words, "data.target=[digit,size]", "+multitask=equal")
    found, (_, targets) = load(folder.path).predict_data(elsewhere=False), test_split(folder)
    metrics = folder.result["metrics"]
    right = (found.of("digit").argmax(1) == targets["digit"]).float().mean()
    assert float(right) == pytest.approx(metrics["test/digit/acc"], abs=1e-6)
    assert float(F.mse_loss(found.of("size"), targets["size"])) == pytest.approx(metrics["test/size/loss"], rel=1e-5)
    assert found.labels("size") == found.of("size")[:, 0].tolist()


def test_class_maps(folder, tmp_path):
    words = file_of(tmp_path / "a.npz", x=IMAGES[:FEW], y=(IMAGES[:FEW, 0] > 0.5).astype("int64"))
    folder.train("max_steps=20", "model=fcn", *words)
    p, (_, targets) = load(folder.path).predict_data(elsewhere=False).of(), test_split(folder)
    assert p.shape == (len(targets[""]), 2, 8, 8)
    right = (p.argmax(1) == targets[""]).double().mean()
    assert float(right) == pytest.approx(folder.result["metrics"]["test/acc"], abs=1e-6)


def test_a_mapping_of_tokens_and_mask(folder, tmp_path):
    tokens = np.random.default_rng(1).integers(0, 20, (FEW, 12))
    mask = np.arange(12) < np.random.default_rng(2).integers(3, 12, (FEW, 1))
    arrays = {"tokens": tokens, "mask": mask, "y": (tokens[:, 0] > 9).astype("int64")}
    words = [*file_of(tmp_path / "a.npz", **arrays), "data.input=[tokens,mask]", "model=transformer", "preprocessing=none"]
    folder.train("max_steps=20", *words)
    predictor = load(folder.path)
    p, (x, targets) = predictor.predict_data(elsewhere=False).of(), test_split(folder)
    right = (p.argmax(1) == targets[""]).double().mean()
    assert float(right) == pytest.approx(folder.result["metrics"]["test/acc"], abs=1e-6)
    torch.testing.assert_close(predictor.predict({name: value.numpy() for name, value in x.items()}).of(), p)
    with pytest.raises(RecipeError, match="was trained on samples of shape"):
        predictor.predict({"tokens": tokens})


SPOKEN = ("data=speech_digits", f"data.root={ROOT / 'tests' / 'data'}", "data.mels=20", "optimizer=adam")


@pytest.mark.parametrize("model", [("model=rnn", "model.bidirectional=true"), ("model=transformer", "model.layers=1")])
def test_recordings_of_any_length(folder, tmp_path, model):
    soundfile = pytest.importorskip("soundfile")
    folder.train("max_steps=20", *SPOKEN, *model, "data.target=[digit,speaker]", "+multitask=equal")
    found, (x, targets) = load(folder.path).predict_data(elsewhere=False), test_split(folder)
    for name, metrics in (("digit", folder.result["metrics"]), ("speaker", folder.result["metrics"])):
        p = found.of(name)
        assert float((p.argmax(1) == targets[name]).float().mean()) == pytest.approx(metrics[f"test/{name}/acc"], abs=1e-6)
        assert float(F.nll_loss(p.log(), targets[name])) == pytest.approx(metrics[f"test/{name}/loss"], abs=1e-5)
    assert found.ids[0] == "0_nicolas_0"
    torch.testing.assert_close(load(folder.path).predict({name: value.numpy() for name, value in x.items()}).of(), found.of())
    signals, module = takes()["signals"], load_run(folder.path)
    new = {"short": signals[:3], "long": [np.concatenate(signals[:4]), *signals[5:8]]}  # than what was trained on
    for name, some in new.items():
        (tmp_path / name).mkdir()
        for number, signal in enumerate(some):
            soundfile.write(tmp_path / name / f"{number}.wav", signal, RATE, "FLOAT")
        found = Predictor([folder.path], ["data=audio_folder", f"data.path={tmp_path / name}", "data.mels=20"]).predict_data(
            True
        )
        assert found.ids == [f"{number}.wav" for number in range(len(some))]
        for number, signal in enumerate(some):
            alone = LogMel(RATE, 20, 0.025, 0.01).of(torch.from_numpy(signal))[None]
            with torch.no_grad():
                expected = module.model({"features": alone, "mask": torch.ones(alone.shape[:2], dtype=torch.bool)})
            torch.testing.assert_close(found.of("digit")[number], expected["digit"].softmax(1)[0], atol=1e-5, rtol=0)


def test_a_folder_of_recordings(folder, tmp_path):
    pytest.importorskip("soundfile")
    folder.train("max_steps=20", "data=audio_folder", f"data.path={write(tmp_path / 'a')}", "model=rnn", "optimizer=adam")
    predictor = load(folder.path)
    p, (_, targets) = predictor.predict_data(elsewhere=False).of(), test_split(folder)
    assert float((p.argmax(1) == targets[""]).float().mean()) == pytest.approx(folder.result["metrics"]["test/acc"], abs=1e-6)
    found = predictor.predict(write(tmp_path / "b", each=1))
    assert found.ids == [f"digit {digit}/{place:03}.wav" for digit, place in ((0, 0), (1, 12), (2, 24))]
    assert set(found.labels()) <= {"digit 0", "digit 1", "digit 2"}
    with pytest.raises(RecipeError, match="has no recordings"):
        predictor.predict(tmp_path / "run")


def test_tokens_longer_than_those_of_the_run_are_refused(folder, tmp_path):
    tokens = np.random.default_rng(1).integers(0, 20, (FEW, 12))
    words = [*file_of(tmp_path / "a.npz", tokens=tokens, y=Y[:FEW]), "data.input=[tokens]", "preprocessing=none"]
    folder.train("max_steps=2", *words, "model=transformer", "model.layers=1")
    with pytest.raises(RecipeError, match="was trained on samples of shape"):
        load(folder.path).predict({"tokens": np.concatenate([tokens, tokens], 1)})


def test_arrays_of_a_caller_and_other_files(folder, tmp_path):
    folder.train("max_steps=20", *file_of(tmp_path / "a.npz", x=IMAGES[:FEW], y=Y[:FEW]))
    predictor, module = load(folder.path), load_run(folder.path)
    with torch.no_grad():
        expected = module.model(torch.from_numpy(IMAGES[FEW:500])).softmax(1)
    np.savez(tmp_path / "b.npz", x=IMAGES[FEW:500])  # no target
    given = [
        IMAGES[FEW:500],
        torch.from_numpy(IMAGES[FEW:500]),
        IMAGES[FEW:500, 0],
        tmp_path / "b.npz",
        str(tmp_path / "b.npz"),
    ]
    for x in given:
        found = predictor.predict(x)
        torch.testing.assert_close(found.of(), expected)
        assert found.ids == [str(number) for number in range(500 - FEW)]
    torch.testing.assert_close(
        predictor.predict((255 * IMAGES[FEW:500]).round().astype("uint8")).of(), expected, atol=0.02, rtol=0
    )


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (np.zeros((3, 64), "float32"), "the input must be images"),
        (np.zeros((3, 1, 9, 9), "float32"), r"was trained on samples of shape \(1, 8, 8\)"),
        (np.full((3, 1, 8, 8), np.nan, "float32"), "holds 192 values that are NaN or infinite"),
        (np.full((3, 1, 8, 8), 16, "float32"), "holds images from 16 to 16"),
        (np.zeros((0, 1, 8, 8), "float32"), "expected numbers"),
        (np.array(["a", "b"]), "expected numbers"),
        (np.float32(1), "expected numbers"),
        ("nowhere.npz", "lies at no path"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(folder, x, line):
    folder.train("max_steps=2")
    with pytest.raises(RecipeError, match=line) as refused:
        load(folder.path).predict(x)
    assert "\n" not in str(refused.value)


class Shifted(Data):
    """Draws where its samples lie, from random numbers that nobody has seeded."""

    def load_inputs(self):
        """Digits, each moved by some pixels."""
        moved = [np.roll(image, np.random.randint(8), 1) for image in IMAGES[:20, 0]]
        return Split(torch.from_numpy(np.stack(moved)).unsqueeze(1) * (0.5 + torch.rand(20, 1, 1, 1) / 2), {})


def test_what_data_of_ones_own_draws_follows_from_the_seed_of_its_splits(folder):
    folder.train("model=linear", "max_steps=2")
    [member] = load(folder.path).members
    first, again, other = (member.of_data(Shifted(split_seed=seed)).of() for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_several_runs_are_averaged(folders):
    members = [folders(f"{seed}") for seed in range(3)]
    for seed, member in enumerate(members):
        member.train("max_steps=20", f"seed={seed}")
    each = [load(member.path).predict_data(elsewhere=False) for member in members]
    together = load(*(member.path for member in members)).predict_data(elsewhere=False)
    torch.testing.assert_close(together.of(), torch.stack([one.of() for one in each]).mean(0))
    assert together.ids == each[0].ids


def splits(path, x, y, first=300):
    """A file with a test split of its own."""
    path.parent.mkdir(exist_ok=True)
    np.savez(path, x_train=x[:first], y_train=y[:first], x_test=x[first:FEW], y_test=y[first:FEW])


def test_data_that_has_moved_and_cannot_be_had_without_targets_is_predicted_on_its_test_split(folder, tmp_path, capsys):
    images = X.reshape(-1, 8, 8).astype("uint8") * 15
    splits(tmp_path / "here" / "mnist.npz", images, Y)
    folder.train("model=linear", "max_steps=2", "data=mnist", f"data.root={tmp_path}/here")
    (tmp_path / "here").rename(tmp_path / "there")
    splits(tmp_path / "others" / "mnist.npz", images[::-1], Y[::-1])
    for place, which in (("there", "the test split"), ("others", "the test split of other data")):
        capsys.readouterr()
        found = predict(Catalogue(), [folder.path], [f"data.root={tmp_path / place}"], tmp_path / "p.csv")
        assert f"samples  100: {which}\n" in capsys.readouterr().out
        expected = load(folder.path).predict((images if place == "there" else images[::-1])[300:FEW, None])
        assert torch.equal(found.of(), expected.of())


@pytest.mark.parametrize(
    ("first", "told"), [(300, "samples  100: the test split of other data\n"), (None, "samples  400: all samples\n")]
)
def test_the_samples_of_other_data_that_are_predicted_are_told(folder, tmp_path, capsys, first, told):
    x = X.astype("float32")
    folder.train("model=linear", "max_steps=2", *file_of(tmp_path / "a.npz", x=x[FEW:], y=Y[FEW:]))
    splits(tmp_path / "b.npz", x, Y, first) if first else np.savez(tmp_path / "b.npz", x=x[:FEW])
    predict(Catalogue(), [folder.path], [f"data.path={tmp_path}/b.npz"], tmp_path / "p.csv")
    assert told in capsys.readouterr().out


def test_what_several_gpus_trained_together_predicts_and_is_tested_on_one_device(folder):
    folder.train("model=linear", "max_steps=2")
    path, own = folder.path / "config.yaml", load(folder.path).predict_data(elsewhere=False).of()
    ours = "devices: 1\n  num_nodes: 1\n  oversubscribe: false\n  strategy: auto\n  precision: 32-true\n  sync_batchnorm: false"
    theirs = ours.replace("1", "2").replace("auto", "ddp").replace("sync_batchnorm: false", "sync_batchnorm: true")
    assert ours in path.read_text()
    path.write_text(path.read_text().replace(ours, theirs))
    assert torch.equal(load(folder.path).predict_data(elsewhere=False).of(), own)
    found = measure(folder.path, read_run(Catalogue(), folder.path), [])["metrics"]
    assert found["test/acc"] == folder.result["metrics"]["test/acc"]


def test_runs_that_cannot_be_averaged_are_refused(folders, tmp_path):
    first, other, split = folders("first"), folders("other"), folders("split")
    first.train("max_steps=2")
    other.train("max_steps=2", *file_of(tmp_path / "a.npz", x=IMAGES[:FEW], y=Y[:FEW] % 2))
    split.train("max_steps=2", "data.split_seed=1")
    with pytest.raises(RecipeError, match="their predictions cannot be averaged"):
        load(first.path, other.path)
    with pytest.raises(RecipeError, match="test splits of different samples"):
        load(first.path, split.path).predict_data(elsewhere=False)
    torch.testing.assert_close(load(first.path, split.path).predict(IMAGES[:2]).of().sum(1), torch.ones(2))
    with pytest.raises(RecipeError, match="is no run"):
        load(tmp_path)
    with pytest.raises(RecipeError, match="expected the folder of a run"):
        load()


def test_test_splits_of_other_samples_with_the_same_rows_are_not_averaged(folders, tmp_path):
    """Their targets tell; the same samples may be shown to each in its own way."""
    x = X[:FEW].astype("float32")
    files = {"a": {"x": x, "y": noisy(1)}, "b": {"x": x, "y": noisy(1, seed=1)}, "c": {"x": x[:, ::-1].copy(), "y": noisy(1)}}
    for name, arrays in files.items():
        folders(name).train("model=linear", "max_steps=2", *file_of(tmp_path / f"{name}.npz", **arrays))
    with pytest.raises(RecipeError, match="test splits of different samples"):
        load(folders("a").path, folders("b").path).predict_data(elsewhere=False)
    together = load(folders("a").path, folders("c").path).predict_data(elsewhere=False)
    each = [load(folders(name).path).predict_data(elsewhere=False).of() for name in "ac"]
    torch.testing.assert_close(together.of(), torch.stack(each).mean(0))


def test_members_of_folds_encode_a_table_each_in_its_own_way(folders, tmp_path):
    """A category of a single row is a feature of the run alone that was trained on it."""
    rng, path = np.random.default_rng(0), tmp_path / "a.csv"
    rows = [f"{rng.normal():.3f},{'rare' if row == 5 else 'ab'[row % 2]},{'yes' if row % 3 else 'no'}" for row in range(60)]
    path.write_text("\n".join(["size,town,ill", *rows]))
    members = [folders(f"{fold}") for fold in (0, 1)]
    words = ("data=csv", f"data.path={path}", "data.target=ill", "data.unseen=ignore", "data.folds=2", "data.batch_size=8")
    for fold, member in enumerate(members):
        member.train("max_steps=4", *words, f"data.fold={fold}")
    each = [load(member.path).predict(path) for member in members]
    predictor = load(*(member.path for member in members))
    assert {member.shape for member in predictor.members} == {(3,), (4,)}
    together = predictor.predict(path)
    torch.testing.assert_close(together.of(), torch.stack([one.of() for one in each]).mean(0))
    assert len(together.ids) == 60 and not torch.equal(each[0].of(), each[1].of())
    with pytest.raises(RecipeError, match="test splits of different samples"):
        predictor.predict_data(elsewhere=False)
