"""Beamformed signals to B-mode grey levels: envelope, then logarithmic compression."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

from grn_monai.errors import InputError

__all__ = ["KINDS", "BMode", "BModed", "envelope", "log_compress"]

KINDS: tuple[str, ...] = ("auto", "rf", "iq", "linear", "db", "grey")
_BLOCK = 1 << 20
"""Samples worked on at a time: the Hilbert transform and the logarithm take several times the memory of their input."""


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the first axis of about `_BLOCK` samples each."""
    step = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    return (slice(at, at + step) for at in range(0, shape[0], step))


def _checked(name: str, values: npt.NDArray[Any]) -> None:
    if values.size == 0:
        raise InputError(name, "no samples", "a volume", "Check the scan.")
    if values.dtype.kind not in "iufc":
        raise InputError(name, f"values of type {values.dtype}", "numbers", "Check the scan.")
    bad = sum(block.size - int(np.isfinite(block).sum()) for block in (values[b] for b in _blocks(values.shape)))
    if bad:
        mend = "Replace them before the export, for example by zero (dB: by the lowest value)."
        raise InputError(name, f"{bad} samples that are NaN or infinite", "finite numbers", mend)


def envelope(volume: npt.NDArray[Any], axis: int = -1) -> npt.NDArray[np.float32]:
    """The envelope: magnitude of complex (IQ) data, or of the analytic signal of real (RF) data along depth.

    The analytic signal is that of Marple (IEEE Trans. Signal Process. 47, 1999), by FFT over the whole A-line; RF must
    be sampled above twice its highest frequency and have no constant offset, which would count as signal.

    Args:
        volume: any shape, real or complex.
        axis: the axis of depth.

    Returns:
        Same shape, float32, 0 or more.

    Raises:
        InputError: no samples, NaN or infinite ones.
    """
    from scipy.signal import hilbert

    _checked("envelope", volume)
    lines = np.moveaxis(volume, axis, -1)
    shape = lines.shape
    if lines.ndim == 1:
        lines = lines[None]
    magnitude = np.empty(lines.shape, np.float32)
    # Rows of A-lines, block by block; the leading axes may be as short as one channel.
    for index in np.ndindex(lines.shape[:-2]):
        for block in _blocks(lines.shape[-2:]):
            part = lines[(*index, block)]
            if part.dtype.kind != "c":
                part = hilbert(part.astype(np.float64 if part.dtype == np.float64 else np.float32), axis=-1)
            np.abs(part, out=magnitude[(*index, block)], casting="same_kind")
    return np.moveaxis(magnitude.reshape(shape), -1, axis)


def _reference(values: npt.NDArray[Any], reference: float | str, zero: float) -> float:
    if reference == "unit":
        return zero
    return float(values.max() if reference == "max" else np.percentile(values, float(reference)))


def _grey_levels(values: npt.NDArray[Any], top: float, span: float, linear: bool) -> npt.NDArray[np.uint8]:
    """0 to 255 for dB values (or amplitudes, `linear`) from `top` − `span` dB to `top`; 8 bits, in blocks."""
    grey = np.empty(values.shape, np.uint8)
    flat, out = values.reshape(-1), grey.reshape(-1)  # a view of contiguous values, else one copy
    for block in _blocks(flat.shape):
        with np.errstate(divide="ignore"):
            level = flat[block].astype(np.float64)
            level = 20 * np.log10(level / top) if linear else level - top
        out[block] = np.rint(np.clip(1 + level / span, 0, 1) * 255).astype(np.uint8)
    return grey


def log_compress(
    envelope: npt.NDArray[Any], dynamic_range_db: float = 60.0, reference: float | Literal["max", "unit"] = "max"
) -> npt.NDArray[np.uint8]:
    """Grey level 255 · (1 + 20 log₁₀(envelope / reference) / dynamic range), clipped to 0 … 255.

    Args:
        envelope: amplitudes, 0 or more, any shape.
        dynamic_range_db: dB from black to white, above 0.
        reference: what becomes white (0 dB): ``"max"``, a percentile (0 to 100), which a few bright specks do not move,
            or ``"unit"`` for amplitude 1, with which scans stay comparable.

    Returns:
        Same shape, uint8.

    Raises:
        InputError: an option is out of range; samples are negative, NaN or infinite; or the reference is zero.
    """
    _check_options("auto", dynamic_range_db, reference)
    _checked("log_compress", envelope)
    if envelope.dtype.kind == "c" or envelope.min() < 0:
        mend = 'Take the envelope first (kind "rf" or "iq"); values in dB have kind "db".'
        raise InputError("log_compress", "complex or negative samples", "an envelope, 0 or more", mend)
    top = _reference(envelope, reference, 1.0)
    if not top > 0:
        mend = "Check the scan, or choose a higher percentile as reference."
        raise InputError("log_compress", "a reference amplitude of zero", "an envelope that is not all zero", mend)
    return _grey_levels(envelope, top, dynamic_range_db, linear=True)


def _check_options(kind: str, dynamic_range_db: float, reference: float | str) -> None:
    if kind not in KINDS:
        raise InputError("BMode kind", repr(kind), ", ".join(KINDS), "Choose one of them.")
    if not (math.isfinite(dynamic_range_db) and dynamic_range_db > 0):
        raise InputError("dynamic_range_db", repr(dynamic_range_db), "dB above 0", "Take for example 60.")
    if isinstance(reference, str) and reference not in ("max", "unit"):
        raise InputError("reference", repr(reference), '"max", "unit" or a percentile', "Choose one of them.")
    if not isinstance(reference, str) and not 0 < reference <= 100:
        raise InputError("reference", repr(reference), "a percentile above 0, to 100", "Take for example 99.9.")


class BMode(Transform):
    """Turns beamformed data into B-mode grey levels, uint8.

    With ``LoadImaged``, complex data needs ``dtype=numpy.complex64``: its default drops the imaginary part.

    Args:
        kind: what the data is.

            * ``"rf"``: real radio-frequency signal: :func:`envelope`, then :func:`log_compress`;
            * ``"iq"``: complex baseband or analytic signal: magnitude, then :func:`log_compress`;
            * ``"linear"``: envelope: :func:`log_compress`;
            * ``"db"``: decibels: only the grey levels; ``reference="unit"`` makes 0 dB white;
            * ``"grey"``: a picture already, unchanged;
            * ``"auto"``: complex data is IQ and uint8 is grey; everything else is refused, since nothing in real
              numbers tells RF, envelope and decibels apart.
        dynamic_range_db: dB from black to white.
        reference: what becomes white; see :func:`log_compress`.
        axis: the axis of depth, the last of ``(C, X, Y, Z)``; only for ``"rf"``.
    """

    def __init__(
        self,
        kind: str = "auto",
        dynamic_range_db: float = 60.0,
        reference: float | Literal["max", "unit"] = "max",
        axis: int = -1,
    ) -> None:
        _check_options(kind, dynamic_range_db, reference)
        self.kind, self.dynamic_range_db, self.reference, self.axis = kind, dynamic_range_db, reference, axis

    def _kind(self, values: npt.NDArray[Any]) -> str:
        complex_data = values.dtype.kind == "c"
        if self.kind == "auto":
            if complex_data:
                return "iq"
            if values.dtype == np.uint8:
                return "grey"
            mend = f"Say which, with the option kind: {', '.join(KINDS[1:])}."
            raise InputError("BMode", f"real values of type {values.dtype}", "data of a known kind", mend)
        if complex_data != (self.kind == "iq"):
            found = "complex values" if complex_data else f"real values of type {values.dtype}"
            expected = f"{'complex' if self.kind == 'iq' else 'real'} values for kind {self.kind!r}"
            raise InputError("BMode", found, expected, "Correct the option kind.")
        return self.kind

    def compress(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Grey levels of an array of any shape; uint8, but for ``"grey"`` as given."""
        kind = self._kind(values)
        _checked("BMode", values)
        if kind == "grey":
            return values
        if kind == "db":
            if values.min() == values.max():
                found = f"a constant volume ({values.flat[0]:g} dB)"
                raise InputError("BMode", found, "values that vary", "Check the scan.")
            top = _reference(values, self.reference, 0.0)
            return _grey_levels(values, top, self.dynamic_range_db, linear=False)
        amplitude = envelope(values, self.axis) if kind in ("rf", "iq") else values
        return log_compress(amplitude, self.dynamic_range_db, self.reference)

    def __call__(self, img: Any) -> torch.Tensor:
        """Maps data of any shape to grey levels 0 … 255 and keeps its geometry.

        Raises:
            InputError: the data does not suit `kind`, is all zero or constant, or has NaN or infinite samples.
        """
        img = convert_to_tensor(img, track_meta=isinstance(img, MetaTensor))
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
        grey = torch.as_tensor(np.ascontiguousarray(self.compress(values.detach().cpu().numpy())), device=img.device)
        return MetaTensor(grey).copy_meta_from(img) if isinstance(img, MetaTensor) else grey


class BModed(MapTransform):
    """Dictionary twin of :class:`BMode`.

    Args:
        keys: keys of images.
        kind: see :class:`BMode`.
        dynamic_range_db: see :class:`BMode`.
        reference: see :class:`BMode`.
        axis: see :class:`BMode`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        kind: str = "auto",
        dynamic_range_db: float = 60.0,
        reference: float | Literal["max", "unit"] = "max",
        axis: int = -1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.bmode = BMode(kind, dynamic_range_db, reference, axis)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Makes each key a B-mode picture."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.bmode(d[key])
        return d
