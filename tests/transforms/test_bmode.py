"""B-mode: envelopes and grey levels by hand, invariances, and nothing guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

import grn_monai.transforms.bmode as module
from grn_monai.data.readers.verasonics import VerasonicsReader
from grn_monai.errors import InputError, find_input_error
from grn_monai.transforms.bmode import BMode, BModed, envelope, log_compress
from tests.data.readers.hdf5_files import save_mat73

AMPLITUDES = arrays(np.float64, (3, 4, 5), elements=st.floats(1e-3, 1e3))


def tone(amplitudes: np.ndarray, samples: int = 64, cycles: int = 9) -> np.ndarray:
    """A pure tone of whole cycles with an amplitude and a phase for each A-line."""
    phase = np.random.default_rng(0).uniform(0, 6.3, amplitudes.shape)[..., None]
    return amplitudes[..., None] * np.cos(2 * np.pi * cycles * np.arange(samples) / samples + phase)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_envelope_of_a_tone_is_its_amplitude(dtype: type, axis: int) -> None:
    amplitudes = np.random.default_rng(1).uniform(1000, 9000, (3, 4))
    signal = np.moveaxis(tone(amplitudes), -1, axis).astype(dtype)
    found = np.moveaxis(envelope(signal, axis), axis, -1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, np.repeat(amplitudes[..., None], 64, -1), rtol=2e-3 if dtype is np.int16 else 1e-5
    )


def test_envelope_of_a_pulse_is_its_window() -> None:
    at = np.arange(256)
    window = np.exp(-(((at - 100) / 20) ** 2))
    found = envelope(window * np.cos(2 * np.pi * 0.2 * at))
    np.testing.assert_allclose(found, window, atol=1e-6)


def test_envelope_of_iq_is_its_magnitude() -> None:
    np.testing.assert_array_equal(envelope(np.array([[3 + 4j, -5j], [0, 1]], np.complex64)), [[5, 5], [0, 1]])


@pytest.mark.parametrize("shape", [(40,), (7, 40), (1, 5, 3, 40), (2, 1, 9, 40)])
def test_envelope_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    signal = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    whole = envelope(signal)
    monkeypatch.setattr(module, "_BLOCK", 80)
    np.testing.assert_array_equal(envelope(signal), whole)
    levels = log_compress(whole)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_array_equal(log_compress(whole), levels)


def test_grey_levels_by_hand() -> None:
    # At 60 dB: 0 dB is white; −20 dB is 255 · (1 − 20/60) = 170; −40 dB 85; −60 dB and less black.
    amplitudes = 3 * 10 ** (np.array([0, -20, -40, -60, -80, -30]) / 20)
    np.testing.assert_array_equal(log_compress(np.append(amplitudes, 0.0)), [255, 170, 85, 0, 0, 128, 0])
    np.testing.assert_array_equal(log_compress(amplitudes, 40), [255, 128, 0, 0, 0, 64])
    decibels = np.array([0, -20, -40, -60, -80, -30]) - 7.0
    np.testing.assert_array_equal(BMode("db")(decibels), [255, 170, 85, 0, 0, 128])
    np.testing.assert_array_equal(BMode("db", reference="unit")(decibels), [225, 140, 55, 0, 0, 98])


def test_reference() -> None:
    amplitudes = np.append(np.full(999, 0.1), 100.0)  # one bright speck
    assert log_compress(amplitudes)[0] == 0
    assert log_compress(amplitudes, reference=99.0)[0] == 255
    assert log_compress(amplitudes, reference=99.0)[-1] == 255
    assert log_compress(amplitudes, reference="unit")[0] == 170


@given(AMPLITUDES, st.floats(20, 100))
@settings(max_examples=30, deadline=None)
def test_grey_levels_are_monotone_and_free_of_scale(amplitudes: np.ndarray, span: float) -> None:
    grey = log_compress(amplitudes, span)
    assert grey.max() == 255
    order = np.argsort(amplitudes, axis=None, kind="stable")
    assert (np.diff(grey.ravel()[order].astype(int)) >= 0).all()
    np.testing.assert_array_equal(log_compress(amplitudes * 1024.0, span), grey)  # a power of two: no rounding


@given(AMPLITUDES)
@settings(max_examples=20, deadline=None)
def test_linear_and_decibels_give_the_same_picture(amplitudes: np.ndarray) -> None:
    amplitudes.flat[0] = 2 * amplitudes.max()  # not constant
    linear = BMode("linear")(amplitudes).numpy().astype(int)
    decibels = BMode("db")(20 * np.log10(amplitudes)).numpy().astype(int)
    assert np.abs(linear - decibels).max() <= 1


def test_rf_and_iq_of_one_signal_give_the_same_picture() -> None:
    amplitudes = np.random.default_rng(3).uniform(0.01, 1, (3, 4))
    signal = tone(amplitudes)
    shifted = amplitudes[..., None] * np.exp(1j * np.linspace(0, 40, 64))  # the same envelope at baseband
    rf, iq = BMode("rf")(signal), BMode("iq")(shifted)
    assert rf.dtype == torch.uint8
    assert (rf.int() - iq.int()).abs().max() <= 1
    np.testing.assert_array_equal(BMode()(shifted), iq)


def test_grey_is_unchanged() -> None:
    picture = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    assert torch.equal(BMode()(picture), picture)
    assert torch.equal(BMode("grey")(picture.short()), picture.short())


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.float64])
def test_auto_does_not_guess(dtype: type) -> None:
    for values in (np.array([-3, 2, 1]), np.array([0, 2, 1]), np.array([-60, -3, 0])):
        with pytest.raises(InputError, match="Say which, with the option kind: rf, iq, linear, db, grey"):
            BMode()(values.astype(dtype))


@pytest.mark.parametrize(
    ("kind", "values", "found"),
    [
        ("iq", [1.0, 2.0], "real values"),
        ("rf", [1j, 2.0], "complex values"),
        ("linear", [1j, 2.0], "complex values"),
        ("linear", [-1.0, 2.0], "complex or negative samples"),
        ("linear", [0.0, 0.0], "a reference amplitude of zero"),
        ("rf", [0.0, 0.0], "a reference amplitude of zero"),
        ("iq", [0j, 0j], "a reference amplitude of zero"),
        ("db", [-60.0, -60.0], "a constant volume"),
        ("linear", [1.0, np.nan], "1 samples that are NaN or infinite"),
        ("rf", [np.inf, np.nan], "2 samples that are NaN or infinite"),
        ("db", [0.0, -np.inf], "1 samples that are NaN or infinite"),
        ("iq", [complex(np.nan, 1), 1], "1 samples that are NaN or infinite"),
        ("rf", [], "no samples"),
    ],
)
def test_refused(kind: str, values: list[Any], found: str) -> None:
    with pytest.raises(InputError, match=found):
        BMode(kind)(np.array(values))


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "RF"},
        {"dynamic_range_db": 0},
        {"dynamic_range_db": float("nan")},
        {"reference": "mean"},
        {"reference": 0},
        {"reference": 101.0},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"found .*; expected "):
        BMode(**options)


def test_dictionary_twin_keeps_geometry() -> None:
    affine = torch.diag(torch.tensor([0.3, 0.5, 0.1, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 3, 4, 5), affine=affine)
    out = BModed("image", "linear", allow_missing_keys=True)({"image": image, "subject": "s1"})
    assert out["subject"] == "s1"
    assert torch.equal(out["image"].affine, affine)
    assert torch.equal(out["image"].as_tensor(), BMode("linear")(image.as_tensor()))


def test_from_a_file_of_iq_data(tmp_path: Any) -> None:
    data = (np.random.default_rng(4).standard_normal((6, 5, 4, 2)) @ [1, 1j]).astype(np.complex64)
    path = save_mat73(tmp_path / "a.mat", {"iq": data})
    load = LoadImaged(
        "image", reader=VerasonicsReader(spacing=(1, 1, 1)), dtype=np.complex64, ensure_channel_first=True
    )
    image = Compose([load, BModed("image", "iq")])({"image": str(path)})["image"]
    np.testing.assert_array_equal(image.numpy()[0], log_compress(np.abs(data)).transpose(1, 2, 0))
    with pytest.raises(RuntimeError) as caught:
        Compose([load, BModed("image", "rf")])({"image": str(path)})
    assert find_input_error(caught.value) is not None
