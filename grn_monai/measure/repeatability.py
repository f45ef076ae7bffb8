"""Repeatability over repeated scans of one site: ICC(2,1), standard error, detectable change, Bland–Altman."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.measure.sides import Measure, comparable, cut_note, grey_rule

__all__ = ["bland_altman", "icc_2_1", "plain_repeat", "repeatability"]

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


def plain_repeat(value: Any) -> str | int | float | None:
    """An item's ``repeat`` in one form: 1, 1.0, "1" and " 1 " are the number 1; other text is kept, stripped.

    None, empty text and NaN are None.
    """
    text = "" if value is None else str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text or None
    if math.isinf(number):
        return text
    return None if math.isnan(number) else int(number) if number == int(number) else number


class _Site(NamedTuple):
    """The scans of one site by repeat, or why they are left out."""

    scans: dict[Any, Mapping[str, Any]]
    size: int
    fault: str | None = None


_LACKS = "where a scan lacks the key repeat"
_TWICE = "with a repeat twice"
_LISTED = "no scan has the key repeat: repeats are told by their order in the list"


def _sites(scans: Sequence[Mapping[str, Any]]) -> tuple[list[_Site], list[Any], str | None]:
    """Sites scanned more than once, the repeats in order, and a note."""
    repeats = [plain_repeat(scan.get("repeat")) for scan in scans]
    known = [repeat for repeat in dict.fromkeys(repeats) if repeat is not None]
    numbers = sorted(repeat for repeat in known if not isinstance(repeat, str))
    order = [*numbers, *(repeat for repeat in known if isinstance(repeat, str))]
    places: dict[tuple[Any, ...], list[tuple[Any, Mapping[str, Any]]]] = {}
    for repeat, scan in zip(repeats, scans, strict=True):
        if scan.get("site") is not None or repeat is not None:
            place = (scan["subject"], scan.get("side"), scan.get("site"), scan.get("status"))
            places.setdefault(place, []).append((repeat, scan))
    sites = []
    for group in places.values():
        if len(group) < 2:
            continue
        if not known:
            group = [(i, scan) for i, (_, scan) in enumerate(group, 1)]
        found = dict(group)
        fault = _LACKS if None in found else _TWICE if len(found) < len(group) else None
        sites.append(_Site({} if fault else found, len(group), fault))
    if not known:
        order = list(range(1, max((site.size for site in sites), default=0) + 1))
    return sites, order, None if known else _LISTED


def _complete(groups: Sequence[Mapping[Any, float]], order: Sequence[Any]) -> tuple[list[Any], Floats]:
    """The repeats, and the (n, k) table of the sites that have all of them, that keep the most measurements."""
    counts = {repeat: sum(repeat in group for group in groups) for repeat in order}
    # Stable sorting: of equally frequent repeats the earlier comes first.
    ranked = sorted((repeat for repeat in order if counts[repeat]), key=lambda repeat: -counts[repeat])
    best: tuple[int, list[Any], list[Mapping[Any, float]]] = (0, [], [])
    for k in range(2, len(ranked) + 1):
        chosen = sorted(ranked[:k], key=order.index)
        whole = [group for group in groups if all(repeat in group for repeat in chosen)]
        if whole and k * len(whole) >= best[0]:
            best = (k * len(whole), chosen, whole)
    _, chosen, whole = best
    return chosen, np.array([[group[repeat] for repeat in chosen] for group in whole]).reshape(len(whole), len(chosen))


def repeatability(scans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Repeatability of every measure over the scans that share subject, side, site and status.

    Only scans that name their ``site`` or ``repeat`` count: two scans of one side without either may show two places,
    and two of another ``status`` (before, after) show a change. Repeats are told by ``repeat`` (`plain_repeat`;
    numbers by size, then names in order of appearance); a site where a scan lacks it, or that has one twice, is left
    out. Only where no scan at all has one does the order in the list tell. A site is left out of a measure where the
    field of view cuts the layer in one of its scans (`grn_monai.measure.sides.comparable`); of echo levels, where
    its grey levels are not scaled by the rule of most sites. Sites without all repeats are left out too; which repeats
    are taken is what keeps most measurements. What is left out is counted, and the note says why.
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
        ``bland_altman`` for each pair of repeats with ``first`` and ``second`` (differences are second − first);
        ``values`` (n, k); and ``note``, which says what is missing or left out and why.
    """
    sites, order, note = _sites(list(scans))
    if not sites:
        return []
    notes = [note] if note else []
    for fault in (_LACKS, _TWICE):
        count = sum(site.fault == fault for site in sites)
        if count:
            notes.append(f"left out: {count} site{'s' * (count != 1)} {fault}")
    scale = _commonest_rule(sites)
    tables: dict[Measure, list[dict[Any, float]]] = {}
    cut: dict[Measure, list[set[Any]]] = {}
    for i, site in enumerate(sites):
        for repeat, scan in site.scans.items():
            for measure, value in comparable(scan).items():
                table = tables.setdefault(measure, [{} for _ in sites])
                if value is None:
                    cut.setdefault(measure, [set() for _ in sites])[i].add(repeat)
                else:
                    table[i][repeat] = value
    total = sum(site.size for site in sites)
    rows = []
    for measure, table in tables.items():
        said = list(notes)
        if measure in cut:
            table = [{} if gone else group for group, gone in zip(table, cut[measure], strict=True)]
            said.append(cut_note(sum(map(len, cut[measure]))))
        if measure.is_echo:
            other = [_rules(site) - {scale} for site in sites]
            table = [{} if gone else group for group, gone in zip(table, other, strict=True)]
            if count := sum(map(bool, other)):
                said.append(f"left out: {count} site{'s' * (count != 1)} with grey levels not of the {scale} scale")
        rows.append(_measure_row(measure, table, total, order, said))
    return rows


def _rules(site: _Site) -> set[str | None]:
    return {grey_rule(scan) for scan in site.scans.values()}


def _commonest_rule(sites: Sequence[_Site]) -> str | None:
    """The rule of grey levels that most sites have in all their scans; the 8-bit one of equally many."""
    counts = Counter(next(iter(rules)) for site in sites if len(rules := _rules(site)) == 1)
    return max(counts, key=lambda rule: (counts[rule], rule == "8-bit"), default=None)


def _measure_row(
    measure: Measure, sites: Sequence[Mapping[Any, float]], total: int, order: Sequence[Any], notes: Sequence[str]
) -> dict[str, Any]:
    repeats, values = _complete(sites, order)
    n, k = values.shape
    row: dict[str, Any] = {
        **measure._asdict(),
        "sites": n,
        "repeats": k,
        "left_out_sites": len(sites) - n,
        "left_out_scans": total - values.size,
        "mean": float(values.mean()) if n else None,
        "sd": float(values.std(ddof=1)) if n else None,
        **dict.fromkeys(("icc", "icc_ci95", "sem", "within_sd", "mdc95")),
        "bland_altman": [],
        "values": values,
    }
    found, note = _agreement(row, repeats, values)
    return row | found | {"note": "; ".join([*([note] if note else []), *notes]) or None}


def _agreement(row: Mapping[str, Any], repeats: Sequence[Any], values: Floats) -> tuple[dict[str, Any], str | None]:
    """What the complete table tells of repeatability, and what it does not and why."""
    n, k = values.shape
    if n < LEAST_SITES:
        had = "1 site has" if n == 1 else f"{n} sites have"
        return {}, f"{had} all repeats; at least {LEAST_SITES} are needed"
    pairs = [
        {"first": repeats[a], "second": repeats[b]} | bland_altman(values[:, a], values[:, b])
        for a, b in itertools.combinations(range(k), 2)
    ]
    told = {"within_sd": math.sqrt(float(values.var(axis=1, ddof=1).mean())), "bland_altman": pairs}
    try:
        found = icc_2_1(values)
    except InputError as error:  # what needs no package is told all the same
        return told, f"no ICC: {error.found}; {error.mend}"
    if found is None:
        return told, "all values are the same, so that there is no ICC"
    icc, interval = found
    if not math.isfinite(icc):
        return told, "a variance is 0, so that there is no ICC"
    sem = row["sd"] * math.sqrt(max(1 - icc, 0.0))
    told |= {"icc": icc, "sem": sem, "mdc95": 1.96 * math.sqrt(2) * sem}
    if not all(map(math.isfinite, interval)):
        return told, "a variance is 0, so that the ICC has no finite interval"
    return told | {"icc_ci95": list(interval)}, None
