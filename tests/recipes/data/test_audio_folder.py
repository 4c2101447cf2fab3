"""Recordings in files are read as they lie, whatever their rates, channels and lengths."""

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.data import memory
from recipes.data.audio_folder import AudioFolder
from recipes.data.log_mel import LogMel
from tests.recordings import RATE, takes, write

soundfile = pytest.importorskip("soundfile")


def data_of(path, **arguments):
    data = AudioFolder(str(path), **arguments)
    data.setup()
    return data


def test_samples_are_the_files(tmp_path):
    found, source = takes(), AudioFolder(str(write(tmp_path)))
    everything, test = source.load()
    places = [place for digit in range(3) for place in np.flatnonzero(found["digit"] == digit).tolist()]
    assert test is None and source.class_names[""] == ("digit 0", "digit 1", "digit 2")
    assert source.ids() == [f"digit {found['digit'][place]}/{place:03}.wav" for place in places]
    x, targets = everything.between(0, len(everything))
    assert targets[""].tolist() == [int(found["digit"][place]) for place in places]
    for row, place in enumerate(places):
        expected = LogMel(RATE, 40, 0.025, 0.01).of(torch.from_numpy(found["signals"][place]))
        torch.testing.assert_close(x["features"][row][x["mask"][row]], expected, rtol=1e-4, atol=0.05)  # 16 bits of a file
    data = data_of(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 25, "val": 3, "test": 8}
    assert data.state() == {"rate": RATE, "mels": 40, "window": 0.025, "hop": 0.01}
    assert data_of(write(tmp_path / "elsewhere")).fingerprint == data.fingerprint != data_of(tmp_path, mels=30).fingerprint


def test_a_test_folder_is_the_test_split(tmp_path):
    write(tmp_path, part="train")
    write(tmp_path, part="val", each=2)
    data = data_of(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 32, "val": 4, "test": 6}
    assert data.ids()[0].startswith("val/digit 0/")


def test_other_rates_and_channels_are_put_right_and_told(tmp_path):
    write(tmp_path, each=4)
    t = np.arange(22_050) / 44_100
    soundfile.write(tmp_path / "digit 0" / "music.flac", np.stack([np.sin(2000 * t), np.cos(3000 * t)], 1) / 2, 44_100)
    data = data_of(tmp_path)
    assert data.state()["rate"] == RATE
    assert data.splits["train"].remark.endswith(
        "; 1 of 44,100 samples a second are resampled; 1 are the mean of their channels"
    )
    assert data_of(tmp_path, rate=16_000).splits["train"].remark.count("are resampled") == 2


def test_inputs_of_a_prediction_are_computed_as_in_the_run(tmp_path):
    write(tmp_path / "a", each=5)
    write(tmp_path / "b", each=2, rate=16_000)
    trained, other = data_of(tmp_path / "a"), AudioFolder(str(tmp_path / "b"))
    other.load_state(trained.state())
    source = other.load_inputs()
    assert other.state()["rate"] == RATE and len(source) == 6 and "6 of 16,000 samples a second" in source.remark
    assert other.ids()[0] == "digit 0/000.wav"
    with pytest.raises(
        RecipeError, match="data.rate must be 8000, with which the run was trained, got 16000: type data.rate=8000"
    ):
        AudioFolder(str(tmp_path / "b"), rate=16_000).load_state(trained.state())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "digit 0" / "000.wav").write_text("text"), "000.wav cannot be read as sound"),
        (
            lambda folder: (folder / "digit 7").mkdir(),
            r"digit 7 has no recordings \(.wav, .flac, .ogg, .mp3\): take the folder away",
        ),
        (lambda folder: write(folder, part="train") and write(folder, (4,), part="test"), "has the class digit 4, which"),
        (
            lambda folder: write(folder, part="training") and write(folder, part="validation"),
            "has training and validation, which are names of splits and of no classes: call them train and test, or",
        ),
        (
            lambda folder: soundfile.write(folder / "digit 0" / "long.wav", np.zeros(10 * RATE), RATE),
            "long.wav lasts 10.00 s, longer than data.seconds=2: cut it, take it away, or type data.seconds=10",
        ),
    ],
)
def test_bad_folders_are_one_line(tmp_path, spoil, message):
    if "class" not in message:
        write(tmp_path, each=3)
    spoil(tmp_path)
    with pytest.raises(RecipeError, match=message) as error:
        data_of(tmp_path, seconds=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": None}, "data.path must be a folder"),
        ({"path": "nowhere"}, "no folder .*nowhere: data.path must be a folder with a folder of recordings for each class"),
        ({"path": ".", "rate": 0}, "data.rate must be"),
        ({"path": ".", "mels": 0}, "data.mels must be"),
        ({"path": ".", "window": -1}, "data.window must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        data_of(**arguments)


def test_one_class_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="has one folder, digit 3, and a class alone is nothing to tell apart"):
        data_of(write(tmp_path, (3,)))


def test_without_the_packages_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.data.recordings.find_spec", lambda name: None if name == "soxr" else object())
    with pytest.raises(RecipeError, match=r'sound in files needs soxr: pip install -e ".\[audio\]"'):
        AudioFolder(str(write(tmp_path))).load()


def test_a_recording_whose_spectrum_does_not_fit_into_the_memory_is_refused(tmp_path, monkeypatch):
    """Its features would: an hour of 40 bands takes 58 MB, and its spectrum at 16 kHz 4.4 GB."""
    data, form = AudioFolder(str(tmp_path)), LogMel(16_000, 40, 0.025, 0.01)
    monkeypatch.setattr(memory, "available", lambda: 4.2e9)
    data.expect_short(["a.wav"], [1800.0], form)
    with pytest.raises(RecipeError, match="1.0 hours of sound, the longest recording of 60.0 minutes, take .* GiB, for which"):
        data.expect_short(["a.wav"], [3600.0], form)


def test_only_as_many_spectra_count_as_there_are_at_once(tmp_path, monkeypatch):
    """A long recording among short ones takes what it takes alone; eight of its length would take 35 GB."""
    data, form = AudioFolder(str(tmp_path)), LogMel(16_000, 40, 0.025, 0.01)
    monkeypatch.setattr(memory, "available", lambda: 6e9)
    names = [f"{number}.wav" for number in range(10)]
    data.expect_short(names, [1.0] * 5 + [3600.0] + [1.0] * 4, form)
    data.expect_short(names, [480.0] * 10, form)  # eight of 0.6 GB
    with pytest.raises(RecipeError, match="hours of sound"):
        data.expect_short(names, [700.0] * 10, form)
