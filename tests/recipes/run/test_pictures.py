import time

import numpy as np
import pytest
import torch
from PIL import Image

from plugins.base import Plugin, derive_seed
from plugins.errors import RecipeError
from recipes.data.digits import Digits
from recipes.engine.checkpoint import load_checkpoint
from recipes.run import run
from recipes.run.pictures import GAP, PIXELS, SAMPLES, STEPS, grid

TIMES = PIXELS // 8  # by which a digit is enlarged
WORDS = ("+augmentation=[crop,cutout,mixup]", "+regularizer=[label_smoothing,dropout]", "+adversarial=fgsm")


def rows_of(path, size=8, times=TIMES):
    """The images of a picture as they were before they were enlarged: (rows, samples, height, width, channels), bytes."""
    pixels = np.asarray(Image.open(path))
    cell = size * times
    rows, columns = ((length + GAP) // (cell + GAP) for length in pixels.shape[:2])
    cells = [
        [pixels[y : y + cell, x : x + cell] for x in range(0, columns * (cell + GAP), cell + GAP)]
        for y in range(0, rows * (cell + GAP), cell + GAP)
    ]
    whole = np.array(cells)
    small = whole[:, :, ::times, ::times]
    assert (small.repeat(times, 2).repeat(times, 3) == whole).all() and (whole[..., 3] == 255).all()
    return small[..., :3]


def as_bytes(images):
    return images.clamp(0, 1).mul(255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def first_samples(seed=0, batch_size=32):
    data = Digits()
    data.setup()
    train = data.splits["train"]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(derive_seed(seed, "order", 0)))
    return train.x[order[:batch_size]]


def drawn(folder):
    return {path.name for path in (folder.path / "pictures").iterdir()} if (folder.path / "pictures").exists() else None


def gone(folder):
    """Remove the pictures."""
    for path in (folder.path / "pictures").iterdir():
        path.unlink()
    (folder.path / "pictures").rmdir()


# ------------------------------------------------------------------ the drawing


@pytest.mark.parametrize(
    ("channels", "size", "times"), [(1, 8, 12), (3, 8, 12), (1, 28, 3), (3, 32, 3), (3, 64, 1), (1, 96, 1)]
)
def test_samples_are_enlarged_without_smoothing(tmp_path, channels, size, times):
    rows = [torch.rand(5, channels, size, size) for _ in range(3)]
    grid(rows).save(tmp_path / "a.png")
    found = rows_of(tmp_path / "a.png", size, times)
    for row, expected in zip(found, rows, strict=True):
        assert (row == as_bytes(expected)).all()
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert (pixels[size * times : size * times + GAP, :, 3] == 0).all()  # gaps are transparent
    assert 64 <= size * times <= 96


def test_large_images_are_thinned_out():
    assert grid([torch.rand(2, 3, 224, 224)]).size == (2 * 112 + GAP, 112)


def test_what_is_out_of_range_or_no_number_is_drawn_all_the_same():
    image = grid([torch.tensor([-1.0, 2.0, torch.nan, torch.inf]).view(1, 1, 2, 2)])
    found = np.asarray(image)[:: PIXELS // 2, :: PIXELS // 2, 0]
    assert found.tolist() == [[0, 255], [0, 255]]


def test_rows_of_different_sizes_stand_in_the_middle_of_their_cells():
    image = np.asarray(grid([torch.ones(2, 1, 8, 8), torch.ones(2, 1, 4, 6)]))
    assert image.shape == (2 * 96 + GAP, 2 * 96 + GAP, 4)
    opaque = image[96 + GAP :, :96, 3] == 255
    assert opaque[24:72, 12:84].all() and opaque.sum() == 48 * 72


class Named(Plugin):
    pass


def test_the_default_rows():
    before, after = torch.rand(4, 1, 5, 5), torch.rand(4, 1, 5, 5)
    after[0] = before[0]
    first, second, difference = Named().picture(before, after)
    assert first is before and second is after
    assert (difference[0] == 0.5).all() and difference.min() >= 0 and difference.max() <= 1
    assert (difference - 0.5).abs().amax() == 0.5
    slope = (difference - 0.5)[1:] / (after - before)[1:]
    assert torch.allclose(slope, slope.mean(), rtol=1e-3)
    assert len(Named().picture(before, torch.rand(4, 1, 3, 3))) == 2


# ------------------------------------------------------------------ in a run


def test_each_technique_is_drawn_with_what_it_did_to_the_first_batch(folder):
    folder.train(*WORDS, "max_steps=2", "adversarial.eps=0.2", "augmentation.mixup.alpha=1.0")
    assert drawn(folder) == {"crop.png", "cutout.png", "mixup.png", "fgsm.png"}
    crop, cutout, mixup, fgsm = (
        rows_of(folder.path / "pictures" / f"{name}.png") for name in ("crop", "cutout", "mixup", "fgsm")
    )
    assert all(rows.shape == (3, SAMPLES, 8, 8, 3) for rows in (crop, cutout, mixup, fgsm))
    assert (crop[0] == as_bytes(first_samples()[:SAMPLES])).all()
    for earlier, later in ((crop, cutout), (cutout, mixup), (mixup, fgsm)):
        assert (earlier[1] == later[0]).all()  # one takes what the other left
    assert all((rows[0] != rows[1]).any() for rows in (crop, cutout, mixup, fgsm))
    erased = cutout[0] != cutout[1]
    assert (cutout[1][erased] == 0).all() and (cutout[2][erased] < 128).all() and (cutout[2][~erased] == 128).all()
    distance = np.abs(fgsm[1].astype(int) - fgsm[0])
    assert 45 <= distance.max() <= 52  # 0.2 × 255
    farthest = fgsm[2][distance[..., 0] >= 51]
    assert ((farthest <= 2) | (farthest >= 253)).all() and len(
        np.unique(farthest)
    ) > 1  # a small difference is seen, and its sign


def test_of_two_that_mix_both_are_drawn(folder):
    words = ("+augmentation=[mixup,cutmix]", "augmentation.mixup.alpha=1.0", "augmentation.cutmix.alpha=1.0")
    folder.train(*words, f"max_steps={STEPS}")
    assert drawn(folder) == {"mixup.png", "cutmix.png"}


def test_pictures_change_nothing_and_later_steps_know_nothing_of_them(folder, folders, with_plugin, extra, monkeypatch):
    seen = []

    class Looks(extra):
        def on_train_start(self, trainer, module):
            seen.clear()  # of the rehearsal that looks for the metric to choose by

        def after_step(self, module, optimizer):
            seen.append([isinstance(plugin, Plugin) for plugin in module.hooks["transform_batch"]])

    with_plugin(Looks)
    words = (*WORDS, "max_steps=12", "trainer.log_every_n_steps=1", "trainer.accumulate_grad_batches=2")
    folder.train(*words)
    assert len(seen[0]) == 5 and seen[0].count(False) == 1  # label smoothing may still change an image
    assert all(seen[STEPS - 1]) and len(seen[STEPS - 1]) == 5
    with monkeypatch.context() as context:
        context.setattr(run, "draw_pictures", lambda *_: None)
        folders("plain").train(*words)
    assert drawn(folders("plain")) is None
    assert folder.rows == folders("plain").rows
    first, second = (load_checkpoint(each.path / "checkpoints" / "last.ckpt") for each in (folder, folders("plain")))
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name])


@pytest.mark.parametrize("shape", [(6,), (2, 5, 5)])
def test_what_is_no_image_is_not_drawn(folder, tmp_path, shape):
    np.savez(tmp_path / "own.npz", x=np.random.rand(40, *shape), y=np.arange(40) % 2)
    result = folder.train("data=npz", f"data.path={tmp_path / 'own.npz'}", "+augmentation=mixup", "max_steps=2")
    assert result["status"] == "finished" and drawn(folder) is None


def test_nothing_is_drawn_where_no_image_is_changed(folder):
    folder.train("+regularizer=[label_smoothing]", "+augmentation=[cutout,mixup]", "max_steps=12", *OFF)
    assert drawn(folder) is None


OFF = ("augmentation.cutout.size=0", "augmentation.mixup.alpha=0.0")


def test_a_resumed_run_keeps_its_pictures_and_draws_none(folder, with_plugin, extra):
    class Ends(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 3:
                raise SystemExit

    words = ("+augmentation=cutout", "max_steps=6", "trainer.save_every_n_steps=1")
    with_plugin(Ends)
    with pytest.raises(SystemExit):
        folder.train(*words)
    before = (folder.path / "pictures" / "cutout.png").read_bytes()
    with_plugin()
    half = folder.copy(folder.path.parent / "half")
    gone(half)
    folder.resume()
    assert (folder.path / "pictures" / "cutout.png").read_bytes() == before
    half.resume()
    assert drawn(half) is None


def test_a_technique_may_draw_something_else_or_nothing(folder, with_plugin, extra):
    class Inverts(extra):
        option = "inverts"

        def transform_batch(self, batch, module):
            return type(batch)(1 - batch.x, batch.targets, batch.labels)

        def picture(self, before, after):
            return [after[:2]]

    class Silent(Inverts):
        option = "silent"

        def picture(self, before, after):
            return None

    with_plugin(Inverts, Silent)
    folder.train("max_steps=2")
    assert drawn(folder) == {"inverts.png"}
    assert (rows_of(folder.path / "pictures" / "inverts.png") == as_bytes(1 - first_samples()[:2])).all()


def test_a_picture_that_cannot_be_written_is_one_line(folder):
    folder.path.mkdir()
    (folder.path / "pictures").touch()
    with pytest.raises(RecipeError, match=r"pictures/cutout.png cannot be written") as error:
        folder.train("+augmentation=cutout", "max_steps=2")
    assert "\n" not in str(error.value) and folder.result["status"] == "failed"


def test_drawing_is_no_training_time(folder, with_plugin, extra):
    class Slow(extra):
        option = "slow"

        def transform_batch(self, batch, module):
            return type(batch)(batch.x + 1, batch.targets, batch.labels)

        def picture(self, before, after):
            time.sleep(2)

    with_plugin(Slow)
    began = time.monotonic()
    result = folder.train("max_steps=1")
    assert result["seconds"] <= time.monotonic() - began - 2


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_precisions(folder, precision):
    folder.train("+augmentation=cutout", "max_steps=1", f"trainer.precision={precision}")
    found = rows_of(folder.path / "pictures" / "cutout.png")
    assert np.abs(found[0].astype(int) - as_bytes(first_samples()[:SAMPLES])).max() <= 1


def test_diagnostics_are_drawn_at_the_end_of_a_run_that_has_ended_well(folder):
    words = (
        "+diagnostics=[weight_norm,calibration,activation_stats,lr]",
        "diagnostics.weight_norm.every_n_steps=2",
        "max_steps=4",
    )
    folder.train(*words)
    assert drawn(folder) == {"weight_norm.png", "calibration.png", "activation_stats.png", "lr.png"}
    wide, narrow = (Image.open(folder.path / "pictures" / name).size for name in ("activation_stats.png", "weight_norm.png"))
    assert wide[0] == 3 * narrow[0] and wide[1] == narrow[1]  # of relu nothing is saturated: histograms, dead units, deviations


def test_a_mishap_while_drawing_is_told_and_the_run_has_ended_well(folder, monkeypatch):
    def broken(*_):
        raise ValueError("no colour is left")

    monkeypatch.setattr("recipes.compare.panels.draw_panels", broken)
    assert folder.train("+diagnostics=weight_norm", "max_steps=2")["status"] == "finished"
    assert drawn(folder) is None
    assert "no pictures of what diagnostics have seen: no colour is left" in (folder.path / "train.log").read_text()
