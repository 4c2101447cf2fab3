"""Spoken digits come from one file or from the data set's own files, in its own split or by speakers."""

import re

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.data.log_mel import LogMel
from recipes.data.speech_digits import CLONE, SpeechDigits
from tests.command import ROOT
from tests.recordings import RATE, takes

DATA = str(ROOT / "tests" / "data")
FORM = LogMel(RATE, 40, 0.025, 0.01)


def data_of(root=DATA, *arguments, **named):
    data = SpeechDigits(str(root), *arguments, **named)
    data.setup()
    return data


def spoil(folder, **changed):
    """The excerpt with other arrays; None leaves one out."""
    arrays = {name: value for name, value in {**takes(), **changed}.items() if name != "signals" and value is not None}
    np.savez(folder / "fsdd.npz", **arrays)
    return folder


def test_samples_are_the_takes():
    found, data = takes(), data_of()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 81, "val": 9, "test": 30}
    places = np.flatnonzero(found["index"] < 5)
    x, targets = data.splits["test"].between(0, 30)
    assert targets[""].tolist() == found["digit"][places].tolist() and not data.class_names
    for row, place in enumerate(places.tolist()):
        expected = FORM.of(torch.from_numpy(found["signals"][place]))
        assert torch.equal(x["features"][row][x["mask"][row]], expected)
    assert data.ids()[0] == "0_nicolas_0" and len(data.ids()) == 30
    assert "120 recordings of 0.14 to 0.57 s at 8,000 samples a second" in data.splits["train"].remark


def test_targets():
    found = takes()
    both = data_of(target=["digit", "speaker"])
    assert [(task.name, task.outputs) for task in both.tasks] == [("digit", 10), ("speaker", 3)]
    assert both.tasks[1].names == ("nicolas", "theo", "yweweler")
    one = data_of(target="speaker")
    assert one.splits["test"].labels[""].tolist() == found["speaker"][found["index"] < 5].tolist()
    assert one.tasks[0].names == both.tasks[1].names


def speakers_of(data):
    """By split, of which speakers samples are."""
    everything, _ = SpeechDigits(DATA, groups="speaker").load()
    of = {int(start): int(group) for start, group in zip(everything.starts, everything.groups, strict=True)}
    return {name: {of[int(start)] for start in split.starts} for name, split in data.splits.items()}


def test_speakers_are_in_one_split():
    by_split = speakers_of(data_of(groups="speaker"))
    assert sorted(map(len, by_split.values())) == [1, 1, 1] and len(set().union(*by_split.values())) == 3
    tested = [speakers_of(data_of(groups="speaker", folds=3, fold=fold))["test"] for fold in range(3)]
    assert set().union(*tested) == {0, 1, 2} and all(len(each) == 1 for each in tested)
    with pytest.raises(RecipeError, match="data.folds=4 does not cut 3 groups of data.groups"):
        data_of(groups="speaker", folds=4)


def test_a_clone_of_the_repository_is_the_same_data(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    found = takes()
    folder = tmp_path / CLONE / "recordings"
    folder.mkdir(parents=True)
    for number, signal in enumerate(found["signals"]):
        name = f"{found['digit'][number]}_{found['speakers'][found['speaker'][number]]}_{found['index'][number]}"
        soundfile.write(folder / f"{name}.wav", (signal * 2**15).astype(np.int16), RATE)
    data = data_of(tmp_path)
    assert data.fingerprint == data_of().fingerprint and data.content == data_of().content
    (folder / "0_theo_five.wav").write_bytes((folder / "0_theo_5.wav").read_bytes())
    with pytest.raises(RecipeError, match="0_theo_five.wav must be called DIGIT_SPEAKER_TAKE.wav"):
        data_of(tmp_path)


def test_one_rate_belongs_to_the_run():
    data = data_of(mels=20)
    again = SpeechDigits(DATA, mels=20)
    again.load_state(data.state())
    with pytest.raises(RecipeError, match="data.mels must be 20, with which the run was trained, got 40: type data.mels=20"):
        SpeechDigits(DATA).load_state(data.state())
    with pytest.raises(RecipeError, match="this is no form of sound"):
        SpeechDigits(DATA).load_state({"columns": []})
    SpeechDigits(DATA).load_state({})


def test_data_that_is_not_there_is_told_with_the_command_that_gets_it(tmp_path):
    with pytest.raises(RecipeError) as refused:
        data_of(tmp_path)
    found = re.search(
        r"looked for speech_digits.npz, fsdd.npz and (\S+)/recordings; get it by (git clone [^,]*),", str(refused.value)
    )
    assert found[2].split()[-1] == str(tmp_path / found[1]) and "data.root=FOLDER" in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"signal": None}, "has no array signal"),
        ({"digit": np.zeros(7, int)}, "arrays differ in length: digit has 7"),
        ({"offset": takes()["offset"] + 1}, "an offset that rises from 0 to its length; got int16 and 1 to"),
        ({"signal": takes()["signal"].astype(np.float32)}, "a signal of 16 bits"),
        ({"speakers": np.array(["theo"])}, "a name in speakers for each speaker"),
        ({"index": takes()["index"] * 0 + 7}, "must have takes below 5, which are the test split, and others; got 7 to 7"),
    ],
)
def test_files_that_are_damaged_are_one_line(tmp_path, changed, message):
    with pytest.raises(RecipeError, match=message) as refused:
        data_of(spoil(tmp_path, **changed))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "word"}, r"data.target must be digit, speaker or \[digit,speaker\], got 'word'"),
        ({"target": []}, "data.target must be"),
        ({"target": ["digit", "digit"]}, "data.target must be"),
        ({"groups": "digit"}, "data.groups must be one of speaker"),
        ({"groups": "speaker", "target": "speaker"}, "who cannot be told: leave it out, or take data.target=digit"),
        (
            {"seconds": 0.5},
            r"\d_\w+_\d lasts 0.57 s, longer than data.seconds=0.5: cut it, take it away, or type data.seconds=1",
        ),
        ({"seconds": 0}, "data.seconds must be a number > 0"),
        ({"mels": 500}, "data.mels=500 bands are more"),
        ({"folds": 3}, "the data set has a test split of its own"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message) as refused:
        data_of(**arguments)
    assert "\n" not in str(refused.value)
