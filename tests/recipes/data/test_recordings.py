"""Sound in files is what was written into them; what is no sound is told in one line."""

import os
from pathlib import Path

import numpy as np
import pytest

from plugins.base import RecipeError
from recipes.data.recordings import head, read
from tests.recordings import RATE

soundfile = pytest.importorskip("soundfile")


def tone(rate, seconds=0.5, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def of(path, rate):
    return read(path, head(path), rate).numpy()


@pytest.mark.parametrize(("ending", "off"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.1), ("mp3", 0.1)])
def test_formats(tmp_path, ending, off):
    signal = tone(16_000)
    soundfile.write(tmp_path / f"a.{ending}", signal, 16_000)
    found = of(tmp_path / f"a.{ending}", 16_000)
    assert head(tmp_path / f"a.{ending}")[:2] == (16_000, 1)
    assert found.dtype == np.float32 and abs(len(found) - len(signal)) <= (0 if off < 0.01 else 1200)
    middle = slice(1000, 6000)
    np.testing.assert_allclose(found[middle], signal[middle], atol=off)


def test_channels_are_averaged(tmp_path):
    left, right = tone(RATE), tone(RATE, hertz=700)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, "FLOAT")
    np.testing.assert_allclose(of(tmp_path / "a.wav", RATE), (left + right) / 2, atol=1e-7)
    assert head(tmp_path / "a.wav").channels == 2


@pytest.mark.parametrize("rate", [44_100, 16_000, 6_000])
def test_other_rates_are_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(rate), rate, "FLOAT")
    found = of(tmp_path / "a.wav", RATE)
    assert len(found) == RATE // 2
    np.testing.assert_allclose(found[200:-200], tone(RATE)[200:-200], atol=2e-3)


def whole(path):
    soundfile.write(path, tone(RATE), RATE)
    return path


def cut(path, share=0.6):
    content = whole(path).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (
            "a.wav",
            lambda path: path.write_text("no sound at all, but text"),
            r"a.wav cannot be read as sound \(Format not recognised\)",
        ),
        ("a.mp3", lambda path: path.write_bytes(b"garbage" * 300), r"a.mp3 cannot be read as sound \(Format not recognised\)"),
        ("a.wav", lambda path: path.write_bytes(b""), "a.wav cannot be read as sound"),
        ("a.wav", os.mkfifo, "a.wav is no file"),
        ("a.wav", lambda path: soundfile.write(path, tone(RATE)[:0], RATE), "a.wav has no sound in it"),
        ("a.wav", cut, r"a.wav breaks off \(its head tells of 8,044 bytes, there are 4,826\)"),
        ("a.flac", cut, "a.flac cannot be read as sound"),
        ("a.ogg", cut, "a.ogg cannot be read as sound"),
        ("a.mp3", lambda path: cut(path, 0.7), "a.mp3 breaks off"),
        ("a.wav", lambda path: soundfile.write(path, tone(RATE) * np.nan, RATE, "FLOAT"), "a.wav holds samples that are NaN"),
    ],
)
def test_what_is_no_sound_is_one_line(tmp_path, name, spoil, message):
    spoil(tmp_path / name)
    with pytest.raises(RecipeError, match=message) as refused:
        of(tmp_path / name, RATE)
    assert "\n" not in str(refused.value)


def test_a_wav_that_was_written_as_a_stream_is_read(tmp_path):
    content = bytearray(whole(tmp_path / "a.wav").read_bytes())
    content[4:8] = b"\xff" * 4
    (tmp_path / "b.wav").write_bytes(content)
    np.testing.assert_array_equal(of(tmp_path / "b.wav", RATE), of(tmp_path / "a.wav", RATE))


def test_a_file_in_a_folder_that_may_not_be_entered_is_one_line(tmp_path, monkeypatch):
    def is_file(path):
        raise PermissionError(13, "Permission denied")  # as Python does up to 3.13

    whole(tmp_path / "a.wav")
    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(
        RecipeError, match=r"a.wav cannot be read as sound \(.*Permission denied.*\): write it again"
    ) as refused:
        head(tmp_path / "a.wav")
    assert "\n" not in str(refused.value)
