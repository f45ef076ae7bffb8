"""ICC, SEM, MDC and Bland–Altman against the formulas written out."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from grn_monai.measure.plots import bland_altman_figure
from grn_monai.measure.repeatability import bland_altman, icc_2_1, plain_repeat, repeatability
from grn_monai.measure.sides import comparable, left_right, side_of


def table(n: int = 9, k: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 10 + 2 * rng.standard_normal((n, 1)) + 0.3 * rng.standard_normal((1, k)) + 0.5 * rng.standard_normal((n, k))


def icc_by_hand(x: np.ndarray) -> tuple[float, float, float]:
    """Shrout and Fleiss 1979, with the interval of McGraw and Wong 1996, Table 7."""
    n, k = x.shape
    grand = x.mean()
    msr = k * ((x.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    msc = n * ((x.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    rest = x - x.mean(axis=1, keepdims=True) - x.mean(axis=0, keepdims=True) + grand
    mse = (rest**2).sum() / ((n - 1) * (k - 1))
    icc = (msr - mse) / (msr + (k - 1) * mse + k * (msc - mse) / n)
    a, b = k * icc / (n * (1 - icc)), 1 + k * icc * (n - 1) / (n * (1 - icc))
    v = (a * msc + b * mse) ** 2 / ((a * msc) ** 2 / (k - 1) + (b * mse) ** 2 / ((n - 1) * (k - 1)))
    low, high = f_distribution.ppf(0.975, n - 1, v), f_distribution.ppf(0.975, v, n - 1)
    spread = k * msc + (k * n - k - n) * mse
    return (
        icc,
        n * (msr - low * mse) / (low * spread + n * msr),
        n * (high * msr - mse) / (spread + n * high * msr),
    )


@pytest.mark.parametrize(("n", "k"), [(3, 2), (9, 3), (20, 4)])
def test_icc_and_interval_equal_the_formula(n: int, k: int) -> None:
    x = table(n, k)
    icc, (low, high) = icc_2_1(x) or (0, (0, 0))
    assert (icc, low, high) == pytest.approx(icc_by_hand(x), rel=1e-9), "not rounded either"


def test_icc_of_shrout_and_fleiss() -> None:
    """The example of their paper: ICC(2,1) = 0.29."""
    x = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    icc, interval = icc_2_1(x) or (0, (0, 0))
    assert icc == pytest.approx(0.29, abs=0.005)
    assert interval == pytest.approx((0.02, 0.76), abs=0.005)


def test_pingouin_options_are_left_as_they_were() -> None:
    import pingouin

    before = dict(pingouin.options)
    icc_2_1(table())
    assert dict(pingouin.options) == before


def test_old_names_of_pingouin(monkeypatch: pytest.MonkeyPatch) -> None:
    import pingouin

    new = pingouin.intraclass_corr

    def old(*args: Any, **options: Any) -> Any:
        frame = new(*args, **options).rename(columns={"CI95": "CI95%"})
        return frame.replace({"Type": {"ICC(A,1)": "ICC2", "ICC(C,1)": "ICC3"}})

    expected = icc_2_1(table())
    monkeypatch.setattr(pingouin, "intraclass_corr", old)
    assert icc_2_1(table()) == expected


def test_without_pingouin_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pingouin", None)
    row = repeatability(entries(table()))[0]
    assert row["icc"] is None
    assert 'pip install "grn-monai[scans]"' in row["note"]
    assert row["within_sd"] > 0
    assert len(row["bland_altman"]) == 3


def test_bland_altman_by_hand() -> None:
    a, b = table(12, 2).T
    found = bland_altman(a, b)
    d = b - a
    sd, quantile = d.std(ddof=1), t_distribution.ppf(0.975, 11)
    assert found["n"] == 12
    assert found["bias"] == pytest.approx(d.mean())
    assert (found["lower"], found["upper"]) == pytest.approx((d.mean() - 1.96 * sd, d.mean() + 1.96 * sd))
    assert found["bias_ci95"][1] - found["bias"] == pytest.approx(quantile * sd / np.sqrt(12))
    half = quantile * sd * np.sqrt(1 / 12 + 1.96**2 / 22)
    assert found["upper_ci95"] == pytest.approx([found["upper"] - half, found["upper"] + half])
    assert found["lower_ci95"] == pytest.approx([found["lower"] - half, found["lower"] + half])


def entry(subject: str, value: float, **keys: Any) -> dict[str, Any]:
    layer = {
        "label": 1,
        "name": "dermis",
        "thickness_mm": {"mean": value},
        "normal_thickness_mm": None,
        "echo_percent": {"mean": 50 + value},
        "volume_ml": value / 10,
        "area_cm2": None,
    }
    where = {"subject": subject, "side": None, "site": "L3", "repeat": None}
    return {**where, "layers": [layer], "fascia": None, **keys}


def entries(x: np.ndarray, **keys: Any) -> list[dict[str, Any]]:
    return [entry(f"s{i}", float(v), **keys) for i, row in enumerate(x) for v in row]


def test_all_numbers_of_a_measure() -> None:
    x = table()
    rows = repeatability(entries(x))
    assert [row["measure"] for row in rows] == ["thickness", "echo", "volume"]
    row = rows[0]
    assert (row["sites"], row["repeats"], row["left_out_sites"], row["left_out_scans"]) == (9, 3, 0, 0)
    icc = icc_by_hand(x)[0]
    assert row["icc"] == pytest.approx(icc)
    assert row["sem"] == pytest.approx(x.std(ddof=1) * np.sqrt(1 - icc))
    assert row["mdc95"] == pytest.approx(1.96 * np.sqrt(2) * row["sem"])
    within = ((x - x.mean(axis=1, keepdims=True)) ** 2).sum() / (9 * 2)
    assert row["within_sd"] == pytest.approx(np.sqrt(within))
    assert [(pair["first"], pair["second"]) for pair in row["bland_altman"]] == [(1, 2), (1, 3), (2, 3)]
    assert row["bland_altman"][1]["bias"] == pytest.approx((x[:, 2] - x[:, 0]).mean())
    assert rows[1]["icc"] == pytest.approx(icc), "a shift changes no ICC"
    assert rows[2]["sem"] == pytest.approx(row["sem"] / 10)
    picture = bland_altman_figure(rows)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_complete_cases_are_taken_and_the_others_counted() -> None:
    x = table(8, 3)
    scans = entries(x)
    del scans[-1]  # the last site has two
    scans += [entry("single", 3.0), *entries(table(1, 4), side="left")]  # scanned once; and four times
    row = repeatability(scans)[0]
    assert (row["sites"], row["repeats"]) == (8, 3)
    assert row["left_out_sites"] == 1
    assert row["left_out_scans"] == 3, "two of the last site, the fourth of another"
    assert row["note"] == "no scan has the key repeat: repeats are told by their order in the list"


def test_repeat_keys_decide_the_columns() -> None:
    x = table(5, 2)
    scans = [entry(f"s{i}", float(x[i, j]), repeat=j + 1) for i in range(5) for j in (1, 0)]  # listed backwards
    scans += [entry("s9", 1.0, repeat=1), entry("s9", 1.5, repeat=3)]  # the second is missing
    row = repeatability(scans)[0]
    assert (row["sites"], row["left_out_sites"], row["left_out_scans"]) == (5, 1, 2)
    assert row["icc"] == pytest.approx(icc_by_hand(x)[0])
    assert row["bland_altman"][0]["bias"] == pytest.approx((x[:, 1] - x[:, 0]).mean())


def test_too_few_or_all_alike_says_so() -> None:
    assert repeatability(entries(table(5, 1))) == []
    assert repeatability(entries(table(5, 2), site=None)) == [], "perhaps two places"
    row = repeatability(entries(table(2, 3)))[0]
    assert row["note"].startswith("2 sites have all repeats; at least 3 are needed; no scan has")
    assert row["icc"] is None
    assert row["bland_altman"] == []
    assert bland_altman_figure([row]) is None
    row = repeatability(entries(np.full((4, 2), 3.0)))[0]
    assert row["icc"] is None
    assert "no ICC" in row["note"]
    assert row["bland_altman"][0]["sd"] == 0


def test_left_right() -> None:
    scans = [
        entry("a", 2.0, side="left"), entry("a", 3.0, side="left"), entry("a", 3.5, side="right"),
        entry("a", 9.0, side="left", site="L5"), entry("b", 1.0, side="right"), entry("c", 1.0),
    ]  # fmt: skip
    rows = left_right(scans)
    assert {(row["subject"], row["site"]) for row in rows} == {("a", "L3")}
    row = rows[0]
    assert (row["measure"], row["left"], row["right"], row["n_left"], row["n_right"]) == ("thickness", 2.5, 3.5, 2, 1)
    assert row["difference"] == pytest.approx(1.0)
    assert row["asymmetry_percent"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("given", "side"), [("L", "left"), ("Right ", "right"), ("r", "right"), (None, None), ("midline", None), (1, None)]
)
def test_names_of_sides(given: Any, side: str | None) -> None:
    assert side_of(given) == side


def named(x: np.ndarray, **keys: Any) -> list[dict[str, Any]]:
    return [entry(f"s{i}", float(v), repeat=j, **keys) for i, row in enumerate(x) for j, v in enumerate(row, 1)]


@pytest.mark.parametrize(
    ("given", "plain"),
    [(1, 1), ("1", 1), (" 1 ", 1), (1.0, 1), ("1.5", 1.5), ("pre ", "pre"), (None, None), ("", None), ("nan", None),
     ("inf", "inf"), (True, "True")],
)  # fmt: skip
def test_one_form_of_repeats(given: Any, plain: Any) -> None:
    assert plain_repeat(given) == plain
    assert type(plain_repeat(given)) is type(plain)


def test_numbers_as_text_are_the_same_repeats() -> None:
    x = table(5, 2)
    scans = named(x)
    for scan in scans[:4]:
        scan["repeat"] = f" {scan['repeat']} "
    row = repeatability(scans)[0]
    assert (row["sites"], row["repeats"], row["left_out_sites"]) == (5, 2, 0)
    assert row["bland_altman"][0]["bias"] == pytest.approx((x[:, 1] - x[:, 0]).mean())


def test_a_scan_without_its_repeat_takes_its_site_only() -> None:
    x = table(6, 2)
    scans = named(x)[::-1]  # the second repeat is listed first
    scans[0]["repeat"] = None  # of the last site
    scans[2]["repeat"] = scans[3]["repeat"]
    row = repeatability(scans)[0]
    assert (row["sites"], row["left_out_sites"], row["left_out_scans"]) == (4, 2, 4)
    assert row["bland_altman"][0]["bias"] == pytest.approx((x[:4, 1] - x[:4, 0]).mean())
    assert "1 site where a scan lacks the key repeat" in row["note"]
    assert "1 site with a repeat twice" in row["note"]


def test_names_keep_their_order_and_come_after_numbers() -> None:
    x = table(5, 2)
    scans = [entry(f"s{i}", float(x[i, j]), repeat=("pre", "post")[j]) for i in range(5) for j in (0, 1)]
    pair = repeatability(scans)[0]["bland_altman"][0]
    assert (pair["first"], pair["second"]) == ("pre", "post")
    assert pair["bias"] == pytest.approx((x[:, 1] - x[:, 0]).mean())
    x = table(5, 3)
    scans = [entry(f"s{i}", float(x[i, j]), repeat=("a", 10, 9)[j]) for i in range(5) for j in range(3)]
    pairs = repeatability(scans)[0]["bland_altman"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [(9, 10), (9, "a"), (10, "a")]


def test_before_and_after_are_no_repeats_and_no_sides_of_each_other() -> None:
    scans = [entry(f"s{i}", v, status=s) for i in range(4) for s, v in (("before", 1.0), ("after", 3.0))]
    assert repeatability(scans) == []
    scans = [entry("p", 2.0, side="left", status="before"), entry("p", 4.0, side="left", status="after"),
             entry("p", 3.0, side="right", status="before")]  # fmt: skip
    rows = [row for row in left_right(scans) if row["measure"] == "thickness"]
    assert [(row["status"], row["left"], row["right"], row["n_left"]) for row in rows] == [("before", 2.0, 3.0, 1)]


def cut(scan: dict[str, Any], percent: float = 5.1) -> dict[str, Any]:
    layer = {**scan["layers"][0], "cut_percent": percent, "normal_thickness_mm": {"mean": 1.0}}
    layer["area_cm2"] = {"sagittal": {"mean": 2.0}}
    return {**scan, "layers": [layer]}


def test_what_the_field_of_view_cuts_is_not_compared() -> None:
    found = comparable(cut(entry("a", 2.0)))
    assert {m.measure: value for m, value in found.items()} == {
        "thickness": None, "normal_thickness": None, "echo": 52.0, "volume": None, "area_sagittal": None,
    }  # fmt: skip
    assert None not in comparable(cut(entry("a", 2.0), 5.0)).values()
    x = table(6, 2)
    scans = named(x)
    scans[0], scans[3] = cut(scans[0]), cut(scans[3])
    rows = {row["measure"]: row for row in repeatability(scans)}
    for measure in ("thickness", "volume"):
        assert (rows[measure]["sites"], rows[measure]["left_out_sites"]) == (4, 2)
        assert rows[measure]["note"].endswith("cut by the field of view in 2 scans")
    assert (rows["echo"]["sites"], rows["echo"]["note"]) == (6, None)

    sides = [cut(entry("a", 2.0, side="left")), entry("a", 3.0, side="left"), entry("a", 4.0, side="right")]
    rows = {row["measure"]: row for row in left_right(sides)}
    assert set(rows) == {"thickness", "echo", "volume"}
    row = rows["thickness"]
    assert row["left"] is row["right"] is row["difference"] is row["asymmetry_percent"] is None
    assert row["note"] == "cut by the field of view in 1 scan"
    assert rows["echo"]["difference"] == pytest.approx(1.5)
    assert left_right(sides[:2]) == []


def rule(scan: dict[str, Any], name: str) -> dict[str, Any]:
    return {**scan, "echo_scale": {"rule": name, "black": 0, "white": 255}}


def test_grey_levels_of_two_scales_are_not_compared() -> None:
    x = table(6, 2)
    scans = [rule(scan, "percentiles" if scan["subject"] == "s0" else "8-bit") for scan in named(x)]
    scans[2] = rule(scans[2], "percentiles")
    rows = {row["measure"]: row for row in repeatability(scans)}
    assert (rows["echo"]["sites"], rows["echo"]["left_out_sites"]) == (4, 2)
    assert rows["echo"]["note"] == "left out: 2 sites with grey levels not of the 8-bit scale"
    assert rows["echo"]["icc"] == pytest.approx(icc_by_hand(x[2:])[0])
    assert (rows["thickness"]["sites"], rows["thickness"]["note"]) == (6, None)
    sides = [rule(entry("a", 2.0, side="left"), "8-bit"), rule(entry("a", 4.0, side="right"), "percentiles")]
    rows = {row["measure"]: row for row in left_right(sides)}
    assert rows["echo"]["left"] is None
    assert rows["echo"]["note"] == "grey levels of different scales: 8-bit and percentiles"
    assert rows["thickness"]["difference"] == pytest.approx(2)


def test_echo_levels_have_no_relative_asymmetry() -> None:
    fascia = {"fascia": {"echo_percent": {"mean": 60.0}, "contrast_percent": 20.0}}
    rows = left_right([entry("a", 2.0, side="left", **fascia), entry("a", 3.0, side="right", **fascia)])
    found = {(row["layer"], row["measure"]): (row["unit"], row["asymmetry_percent"]) for row in rows}
    assert found == {
        ("dermis", "thickness"): ("mm", pytest.approx(40)),
        ("dermis", "echo"): ("%", None),
        ("dermis", "volume"): ("ml", pytest.approx(40)),
        ("fasciae", "echo"): ("%", None),
        ("fasciae", "contrast_to_muscle"): ("percentage points", None),
    }


@pytest.mark.parametrize(
    ("names", "bare"),
    [(("psoas_left", "psoas_right"), "psoas"), (("Left psoas", "Right psoas"), "psoas"),
     (("psoas (right)", "psoas (left)"), "psoas"), (("psoas left", "iliacus right"), None),
     (("cleft", "cright"), None), (("psoas left", "psoas"), None)],
)  # fmt: skip
def test_sides_in_the_names_of_labels(names: tuple[str, str], bare: str | None) -> None:
    scan = entry("a", 2.0)
    scan["layers"] = [
        {**scan["layers"][0], "label": i, "name": name, "volume_ml": i} for i, name in enumerate(names, 1)
    ]
    rows = [row for row in left_right([scan]) if row["measure"] == "volume"]
    if bare is None:
        assert rows == []
        return
    left = 1 + ("left" not in names[0].lower())
    assert [(row["layer"], row["label"], row["left"], row["right"]) for row in rows] == [(bare, left, left, 3 - left)]


def test_a_variance_of_zero_is_said() -> None:
    x = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])  # all sites alike, and a bias
    row = repeatability(named(x))[0]
    assert row["bland_altman"][0]["bias"] == 1
    assert row["icc_ci95"] is None
    assert "a variance is 0" in row["note"]
