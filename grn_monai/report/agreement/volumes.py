"""Agreement of predicted with true muscle volumes: ICC(2,1), Bland–Altman, correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.measure.repeatability import bland_altman, icc_2_1

__all__ = ["LEAST", "VolumeAgreement", "constant", "fisher_interval", "volume_agreement"]

Floats = npt.NDArray[np.float64]

LEAST = 3
"""Fewer subjects leave an ICC, limits of agreement and an analysis of variance without meaning."""


def constant(values: npt.ArrayLike) -> bool:
    """Whether all values are the same up to rounding."""
    array = np.asarray(values, dtype=np.float64)
    return bool(np.ptp(array) <= 1e-12 * max(1.0, float(np.abs(array).max())))


def fisher_interval(r: float, n: int) -> tuple[float, float] | None:
    """95 % interval by Fisher's z, tanh(artanh r ± 1.96/√(n − 3)): the one whose figures the MRI study prints.

    Args:
        r: a correlation, Pearson's or intraclass.
        n: number of subjects.

    Returns:
        (low, high); None for n ≤ 3, and where |r| is 1, as z is infinite there.
    """
    if n <= 3 or abs(r) >= 1 - 1e-12:
        return None
    half = 1.959964 / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


@dataclass(frozen=True)
class VolumeAgreement:
    """Predicted against true volume of one muscle in ml; statistics are None where `note` says why.

    Attributes:
        truth, predicted: (n,) ml.
        icc: ICC(2,1) and its F-based 95 % interval (McGraw and Wong 1996), or None for that.
        icc_fisher: its interval by Fisher's z.
        bland_altman: as `grn_monai.measure.repeatability.bland_altman` gives, predicted − true.
        r, r_interval, r_p: Pearson's correlation, its 95 % interval (Fisher's z) and p.
        slope, intercept: least-squares line, predicted on true.
        note: why something is missing; empty otherwise.
    """

    truth: Floats
    predicted: Floats
    icc: float | None = None
    icc_interval: tuple[float, float] | None = None
    icc_fisher: tuple[float, float] | None = None
    bland_altman: dict[str, Any] | None = None
    r: float | None = None
    r_interval: tuple[float, float] | None = None
    r_p: float | None = None
    slope: float | None = None
    intercept: float | None = None
    note: str = ""


def volume_agreement(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> VolumeAgreement:
    """Compare volumes of one muscle over subjects.

    Args:
        truth: (n,) true volumes in ml, finite.
        predicted: (n,) predicted volumes in ml of the same subjects.

    Raises:
        InputError: pingouin is not installed.
    """
    from scipy.stats import linregress

    true, pred = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    n = true.size
    if n < LEAST:
        return VolumeAgreement(true, pred, note=f"{n} of {LEAST} subjects needed")
    values: dict[str, Any] = {"bland_altman": bland_altman(true, pred)}
    notes = []
    table = np.stack([true, pred], axis=1)
    found = None if constant(table) else icc_2_1(table)
    if found is None:
        notes.append("all volumes are the same: no ICC")
    else:
        icc, interval = found
        values |= {"icc": icc, "icc_fisher": fisher_interval(icc, n)}
        values["icc_interval"] = interval if all(math.isfinite(end) for end in interval) else None
        if constant(true - pred):
            notes.append("no differences between subjects: ICC without an interval")
    if constant(true) or constant(pred):
        notes.append("no spread of the volumes: no correlation")
    else:
        line = linregress(true, pred)
        r = float(np.clip(line.rvalue, -1, 1))
        values |= {"r": r, "r_interval": fisher_interval(r, n), "r_p": float(line.pvalue)}
        values |= {"slope": float(line.slope), "intercept": float(line.intercept)}
    return VolumeAgreement(true, pred, **values, note="; ".join(notes))
