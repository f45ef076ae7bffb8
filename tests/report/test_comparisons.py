from __future__ import annotations

import math

import pytest

from grn_monai.report.comparisons import repeat_comparisons, side_comparisons
from grn_monai.report.numbers import interval, number, significant, spread


@pytest.mark.parametrize(
    ("value", "arguments", "text"),
    [
        (1.005, (1,), "1.0"),
        (-0.25, (2, "mm"), "−0.25\u202fmm"),
        (3, (1, "", True), "+3.0"),
        (None, (2, "mm"), "–"),
        (math.nan, (2,), "–"),
        (math.inf, (2,), "–"),
    ],
)
def test_number(value: float | None, arguments: tuple[object, ...], text: str) -> None:
    assert number(value, *arguments) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (0.05, "0.05"),
        (-2.0, "−2"),
        (1e-7, "1e−07"),
        (None, "–"),
    ],
)
def test_significant(value: float | None, text: str) -> None:
    assert significant(value, 3) == text


def test_spread_and_interval() -> None:
    assert spread({"mean": 1.234, "sd": 0.1}) == "1.23 ± 0.10"
    assert spread({"mean": 1.234, "sd": None}) == "1.23"
    assert spread({"mean": None, "sd": 1.0}) == spread(None) == "–"
    assert interval([-0.5, 1], 1) == "−0.5 to 1.0"
    assert interval([None, 1]) == interval(None) == ""


def _side(subject: str, left: float, right: float) -> dict[str, object]:
    return {
        **{"subject": subject, "site": "L4", "label": 2, "layer": "fat", "measure": "thickness", "unit": "mm"},
        **{"left": left, "right": right, "n_left": 2, "n_right": 1, "difference": right - left},
        "asymmetry_percent": 200 * (right - left) / (right + left),
    }


def test_sides_are_summed_up_by_quantity_and_layer() -> None:
    rows = [_side("ann", 4.0, 6.0), _side("bob", 6.0, 5.0), {**_side("ann", 1.0, 2.0), "measure": "area_sagittal"}]
    thickness, area = side_comparisons(rows)
    assert thickness.title == "Thickness along the A-line (mm)"
    assert area.title == "Cross-sectional area, sagittal slices (mm)"
    (name, cells), *others = thickness.table.rows
    assert (name, others) == ("fat", [])
    # means and SDs (N − 1) by hand: left 4 and 6, right 6 and 5, differences 2 and −1
    texts = ["2", "5.00 ± 1.41", "5.50 ± 0.71", "+0.50 ± 2.12", "+40.0\u202f%"]
    assert [cell.text for cell in cells] == texts
    assert cells[-1].below == ("ann, L4",)
    assert [name for name, _ in thickness.single.rows] == ["ann, L4: fat", "bob, L4: fat"]
    assert [cell.text for cell in thickness.single.rows[1][1]] == ["6.00", "5.00", "−1.00", "−18.2\u202f%", "2 and 1"]
    assert [cell.text for cell in area.table.rows[0][1]][:2] == ["1", "1.00"]  # one pair has no SD
    assert side_comparisons([]) == side_comparisons(None) == []


def test_repeats_show_reliability_errors_and_limits_of_agreement() -> None:
    pair = {"first": 1, "second": 2, "n": 9, "bias": 0.0123, "bias_ci95": [-0.1, 0.12]}
    pair |= {"lower": -0.5, "lower_ci95": [-0.7, -0.3], "upper": 0.52, "upper_ci95": None}
    row = {
        **{"label": 2, "layer": "fat", "measure": "echo", "unit": "%", "sites": 9, "repeats": 3, "left_out_sites": 1},
        **{
            "mean": 40.04,
            "sd": 5.0,
            "icc": 0.914,
            "icc_ci95": [0.8, 0.97],
            "sem": 1.466,
            "within_sd": 1.4,
            "mdc95": 4.06,
        },
        **{"bland_altman": [pair], "note": None},
    }
    none = {**row, "layer": "muscle", "sites": 1, "icc": None, "icc_ci95": None, "sem": None, "mdc95": None}
    none |= {"mean": None, "sd": None, "within_sd": None, "bland_altman": [], "note": "1 site has all repeats"}
    (found,) = repeat_comparisons([row, none])
    assert found.title == "Echo level (%)"
    cells = dict(found.table.rows)
    assert [cell.text for cell in cells["fat"]] == ["9 × 3", "40.0 ± 5.0", "0.91", "1.5", "1.4", "4.1"]
    assert cells["fat"][0].below == ("1 left out",)
    assert cells["fat"][2].below == ("0.80 to 0.97",)
    assert [cell.text for cell in cells["muscle"]][1:] == ["–"] * 5
    assert cells["muscle"][2].below == ("1 site has all repeats",)
    ((name, limits),) = found.single.rows
    assert name == "fat: 2 − 1"
    assert [cell.text for cell in limits] == ["9", "+0.0", "−0.5", "0.5"]
    assert [cell.below for cell in limits] == [(), ("−0.1 to 0.1",), ("−0.7 to −0.3",), ()]


def test_sides_of_one_site_in_two_states_are_told_apart() -> None:
    row = {"label": 2, "layer": "fat", "measure": "thickness", "unit": "mm", "subject": "ann", "site": "L3"}
    row |= {"left": 5.0, "right": 5.5, "difference": 0.5, "asymmetry_percent": 9.5, "n_left": 1, "n_right": 1}
    later = {**row, "left": 5.0, "right": 7.0, "difference": 2.0, "asymmetry_percent": 33.3}
    (found,) = side_comparisons([{**row, "status": "before"}, {**later, "status": "after"}])
    assert [name for name, _ in found.single.rows] == ["ann, L3, before: fat", "ann, L3, after: fat"]
    assert found.table.rows[0][1][-1].below == ("ann, L3, after",)
    (plain,) = side_comparisons([{**row, "status": None}])
    assert plain.single.rows[0][0] == "ann, L3: fat"


def test_sides_that_cannot_be_compared_say_why() -> None:
    row = {"layer": "muscle", "measure": "echo", "unit": "%", "subject": "ann", "site": None, "status": None}
    row |= {"left": 20.0, "right": 17.5, "difference": -2.5, "asymmetry_percent": None, "n_left": 1, "n_right": 1}
    gone = {**row, "subject": "bob", **dict.fromkeys(("left", "right", "difference")), "note": "of different scales"}
    (found,) = side_comparisons([row, gone])
    assert found.table.columns[-1] == "Largest difference"
    ((_, cells),) = found.table.rows
    assert [cell.text for cell in cells] == ["1", "20.0", "17.5", "−2.5", "−2.5"]
    assert cells[0].below == ("1 more: of different scales",)
    assert cells[-1].below == ("ann",)
    assert [cell.below for _, single in found.single.rows for cell in single[2:3]] == [(), ("of different scales",)]
