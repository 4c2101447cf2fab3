"""Log-mel features are librosa's: as it has computed them for some takes, by the equation for any sound, and live where it is installed."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import get_window

from plugins.base import RecipeError
from recipes.data.log_mel import LogMel, mel_bank, to_hertz, to_mels
from tests.command import ROOT
from tests.recordings import takes

FORMS = [
    LogMel(8000, 40, 0.025, 0.01),
    LogMel(16000, 64, 0.032, 0.016),
    LogMel(44100, 80, 0.05, 0.0123),
    LogMel(8000, 13, 0.02, 0.02),
]
RECORDED = {"narrow": FORMS[0], "wide": LogMel(16000, 24, 0.032, 0.016)}


def hertz_of(mels):
    """Slaney's scale, in plain Python."""
    return mels * 200 / 3 if mels < 15 else 1000 * 6.4 ** ((mels - 15) / 27)


def bank_of(form):
    """The triangles, each drawn between its corners."""
    top = form.rate / 2
    highest = top * 3 / 200 if top < 1000 else 15 + 27 * math.log(top / 1000) / math.log(6.4)
    corners = [hertz_of(highest * number / (form.mels + 1)) for number in range(form.mels + 2)]
    places = np.arange(form.points // 2 + 1) * form.rate / form.points
    return np.stack(
        [
            2 / (high - low) * np.interp(places, [low, middle, high], [0, 1, 0])
            for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False)
        ]
    )


def by_hand(signal, form):
    """The equation."""
    missing = form.points - form.width
    window = np.pad(get_window("hann", form.width), (missing // 2, missing - missing // 2))
    padded = np.pad(signal.astype(float), form.points // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, form.points)[:: form.step]
    power = np.abs(np.fft.rfft(frames * window)) ** 2 @ bank_of(form).T
    return 10 * np.log10(np.maximum(power, 1e-10))


@pytest.mark.parametrize("form", FORMS)
def test_features_are_those_of_the_equation(form):
    signals = [np.random.default_rng().normal(0, 0.1, size).astype(np.float32) for size in (1, 100, 999, 5000, 16_000)]
    for signal in [*signals, *takes()["signals"][:3]]:
        found = form.of(torch.from_numpy(signal))
        assert found.dtype == torch.float32 and found.shape == (form.frames(len(signal)), form.mels)
        np.testing.assert_allclose(found.numpy(), by_hand(signal, form), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", RECORDED)
def test_features_are_those_that_librosa_has_computed(name):
    with np.load(ROOT / "tests" / "data" / "log_mel.npz") as file:
        expected = {key: file[key] for key in file if key.startswith(name)}
    assert len(expected) == 3
    for key, values in expected.items():
        found = RECORDED[name].of(torch.from_numpy(takes()["signals"][int(key.split("_")[1])]))
        np.testing.assert_allclose(found.numpy(), values, rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("form", FORMS)
def test_where_librosa_is_installed_it_computes_the_same(form):
    librosa = pytest.importorskip("librosa")  # not of the extras: torchmetrics would load onnxruntime and its threads beside it
    signal = np.random.default_rng().normal(0, 0.1, 5000).astype(np.float32)
    shape = {"n_fft": form.points, "hop_length": form.step, "win_length": form.width, "n_mels": form.mels}
    power = librosa.feature.melspectrogram(y=signal, sr=form.rate, **shape, pad_mode="constant", dtype=np.float64)
    expected = librosa.power_to_db(power, top_db=None).T
    np.testing.assert_allclose(form.of(torch.from_numpy(signal)).numpy(), expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("form", FORMS)
def test_bands_are_triangles(form):
    np.testing.assert_allclose(mel_bank(form.rate, form.points, form.mels).numpy().T, bank_of(form), rtol=1e-6, atol=1e-9)


def test_pitches():
    mels = torch.rand(1000, dtype=torch.float64) * 60
    torch.testing.assert_close(to_hertz(mels), torch.tensor([hertz_of(float(each)) for each in mels], dtype=torch.float64))
    torch.testing.assert_close(to_mels(to_hertz(mels)), mels)


def test_silence_is_finite():
    assert torch.equal(FORMS[0].of(torch.zeros(500)), torch.full((7, 40), -100.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (8000, 400, 0.025, 0.01),
            "data.mels=400 bands are more than a window of 0.025 s tells apart at 8,000 .*: type data.mels=",
        ),
        ((16000, 10**6, 0.025, 0.01), "data.mels=1000000 bands are more .*: type data.mels="),  # at once
        ((8000, 0, 0.025, 0.01), "data.mels must be"),
        ((8000, 40, 0.0001, 0.01), "data.window must be seconds, at least one sample"),
        ((8000, 40, 0.000125, 0.01), "type fewer, or a longer data.window"),
        ((8000, 40, 0.025, 0), "data.hop must be seconds"),
        ((0, 40, 0.025, 0.01), "data.rate must be"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message) as refused:
        LogMel(*arguments)
    assert "\n" not in str(refused.value)


def test_as_many_bands_as_are_advised_are_taken():
    with pytest.raises(RecipeError) as refused:
        LogMel(8000, 400, 0.025, 0.01)
    most = int(str(refused.value).split("data.mels=")[2].split()[0])
    assert LogMel(8000, most, 0.025, 0.01).mels == most > 40
