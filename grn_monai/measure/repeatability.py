"""Repeatability over repeated scans of one site: ICC(2,1), standard error, detectable change, Bland–Altman."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.measure.sides import Measure, scan_measures

__all__ = ["bland_altman", "icc_2_1", "repeatability"]

Floats = npt.NDArray[np.float64]

LEAST_SITES = 3
"""Fewer sites leave an ICC and limits of agreement without meaning."""


def icc_2_1(values: npt.ArrayLike) -> tuple[float, tuple[float, float]] | None:
    """ICC(2,1), two-way random effects, absolute agreement, single measurement, with its 95 % interval.

    (MSR − MSE) / (MSR + (k − 1)·MSE + k·(MSC − MSE)/n), Shrout and Fleiss 1979; ICC(A,1) of McGraw and Wong 1996,
    whose F-based interval is given. Computed by pingouin.

    Args:
        values: (n, k): n sites, k repeats, complete.

    Returns:
        The ICC and its interval, or None where every value is the same, as there is then nothing to tell apart.

    Raises:
        InputError: pingouin is not installed.
    """
    table = np.asarray(values, dtype=np.float64)
    if np.ptp(table) == 0:
        return None
    try:
        import pandas
        import pingouin
    except ImportError as error:
        mend = 'pip install "grn-monai[scans]"'
        raise InputError("repeatability", "no package pingouin", "pingouin for the ICC", mend) from error
    n, k = table.shape
    frame = pandas.DataFrame(
        {"site": np.repeat(np.arange(n), k), "repeat": np.tile(np.arange(k), n), "value": table.ravel()}
    )
    # pingouin rounds the interval to two decimals unless told otherwise; the option's name follows the column's.
    before = {name: pingouin.options[name] for name in pingouin.options if name.startswith("round.column.CI95")}
    pingouin.options.update(dict.fromkeys(before))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an error term of exactly 0 divides by it; the result is still right
            found = pingouin.intraclass_corr(frame, targets="site", raters="repeat", ratings="value")
    finally:
        pingouin.options.update(before)
    found = found.set_index("Type")
    row = found.loc["ICC(A,1)" if "ICC(A,1)" in found.index else "ICC2"]
    low, high = (float(end) for end in row["CI95" if "CI95" in found.columns else "CI95%"])
    return float(row["ICC"]), (low, high)


def bland_altman(first: npt.ArrayLike, second: npt.ArrayLike) -> dict[str, Any]:
    """Bias and limits of agreement of paired measurements, second − first.

    Bias ± 1.96·SD of the differences (N − 1). Standard errors after Bland and Altman 1999 (Stat Methods Med Res 8:135):
    SD/√n of the bias, SD·√(1/n + 1.96²/(2(n − 1))) of a limit; the 95 % intervals take Student's t with n − 1 degrees
    of freedom.

    Args:
        first: (n,) measurements, n ≥ 2.
        second: (n,) repeats of them.

    Returns:
        ``n``, ``bias``, ``bias_ci95``, ``sd``, ``lower``, ``lower_ci95``, ``upper``, ``upper_ci95``.
    """
    from scipy.stats import t

    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    quantile = float(t.ppf(0.975, n - 1))
    half_bias = quantile * sd / math.sqrt(n)
    half_limit = quantile * sd * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    out: dict[str, Any] = {"n": n, "bias": bias, "bias_ci95": [bias - half_bias, bias + half_bias], "sd": sd}
    for name, limit in (("lower", bias - 1.96 * sd), ("upper", bias + 1.96 * sd)):
        out |= {name: limit, f"{name}_ci95": [limit - half_limit, limit + half_limit]}
    return out


def _complete(groups: Sequence[Mapping[Any, float]]) -> tuple[list[Any], Floats]:
    """The repeats, and the (n, k) table of the sites that have all of them, that keep the most measurements."""
    counts: dict[Any, int] = {}
    for group in groups:
        for repeat in group:
            counts[repeat] = counts.get(repeat, 0) + 1
    # Stable sorting: of equally frequent repeats the earlier comes first.
    ranked = sorted(sorted(counts, key=_order), key=lambda repeat: -counts[repeat])
    best: tuple[int, list[Any], list[Mapping[Any, float]]] = (0, [], [])
    for k in range(2, len(ranked) + 1):
        chosen = sorted(ranked[:k], key=_order)
        whole = [group for group in groups if all(repeat in group for repeat in chosen)]
        if whole and k * len(whole) >= best[0]:
            best = (k * len(whole), chosen, whole)
    _, chosen, whole = best
    return chosen, np.array([[group[repeat] for repeat in chosen] for group in whole]).reshape(len(whole), len(chosen))


def _order(repeat: Any) -> tuple[int, float, str]:
    """Numbers by size before names by letter."""
    try:
        return 0, float(repeat), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(repeat)


def repeatability(scans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Repeatability of every measure over the scans that share subject, side and site.

    Only scans that name their ``site`` or ``repeat`` count: two scans of one side without either may show two places.
    Repeats are told by ``repeat`` where every scan of the sites with repeats has one, else by their order in the
    list. Sites without all repeats are left out and counted; which repeats are taken is what keeps most measurements.
    The two sides of a subject count as two sites, as in the published studies; they are not independent, so the
    intervals are a little too narrow where both are there.

    Args:
        scans: entries of ``measurements.json``.

    Returns:
        One dict a measure, empty where no site was scanned twice: ``label``, ``layer``, ``measure``, ``unit``;
        ``sites`` n, ``repeats`` k, ``left_out_sites``, ``left_out_scans``; ``mean`` and ``sd`` (N − 1) of all n·k
        values; ``icc`` and ``icc_ci95``; ``sem`` = SD·√(1 − ICC); ``within_sd``, the root of the within-site mean
        square of the one-way analysis of variance (the repeatability SD of Bland and Altman, which no spread between
        sites enters); ``mdc95`` = 1.96·√2·SEM, the smallest change of one site that is beyond the error;
        ``bland_altman`` for each pair of repeats with ``first`` and ``second``; ``values`` (n, k); and ``note``,
        which says what is missing and why.
    """
    places: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for scan in scans:
        if scan.get("site") is not None or scan.get("repeat") is not None:
            places.setdefault((scan["subject"], scan.get("side"), scan.get("site")), []).append(scan)
    repeated = [group for group in places.values() if len(group) > 1]
    if not repeated:
        return []
    named = all(scan.get("repeat") is not None for group in repeated for scan in group)
    named = named and all(len({str(scan["repeat"]) for scan in group}) == len(group) for group in repeated)
    tables: dict[Measure, list[dict[Any, float]]] = {}
    for i, group in enumerate(repeated):
        for j, scan in enumerate(group):
            repeat = scan["repeat"] if named else j + 1
            for measure, value in scan_measures(scan).items():
                sites = tables.setdefault(measure, [{} for _ in repeated])
                sites[i][repeat] = value
    total = sum(map(len, repeated))
    return [_measure_row(measure, sites, total) for measure, sites in tables.items()]


def _measure_row(measure: Measure, sites: Sequence[Mapping[Any, float]], total: int) -> dict[str, Any]:
    repeats, values = _complete(sites)
    n, k = values.shape
    row: dict[str, Any] = {
        **measure._asdict(),
        "sites": n,
        "repeats": k,
        "left_out_sites": len(sites) - n,
        "left_out_scans": total - values.size,
        "mean": float(values.mean()) if n else None,
        "sd": float(values.std(ddof=1)) if n else None,
        **dict.fromkeys(("icc", "icc_ci95", "sem", "within_sd", "mdc95", "note")),
        "bland_altman": [],
        "values": values,
    }
    if n < LEAST_SITES:
        had = "1 site has" if n == 1 else f"{n} sites have"
        row["note"] = f"{had} all repeats; at least {LEAST_SITES} are needed"
        return row
    row["within_sd"] = math.sqrt(float(values.var(axis=1, ddof=1).mean()))
    for a, b in itertools.combinations(range(k), 2):
        pair = {"first": repeats[a], "second": repeats[b]}
        row["bland_altman"].append(pair | bland_altman(values[:, a], values[:, b]))
    try:
        found = icc_2_1(values)
    except InputError as error:  # what needs no package is told all the same
        row["note"] = f"no ICC: {error.found}; {error.mend}"
        return row
    if found is None:
        row["note"] = "all values are the same, so that there is no ICC"
        return row
    icc, interval = found
    row |= {"icc": icc, "icc_ci95": list(interval), "sem": row["sd"] * math.sqrt(max(1 - icc, 0.0))}
    row["mdc95"] = 1.96 * math.sqrt(2) * row["sem"]
    return row
