"""The README's table of a study."""

from __future__ import annotations

from typing import Any

from benchmarks._study import study_table


def score(title: str, seeds: list[int], means: list[float]) -> dict[str, Any]:
    overall = {"mean": sum(means) / len(means), "seed_sd": 0.02 if len(means) > 1 else None, "seeds": seeds}
    overall["seed_means"] = means
    return {
        "title": title,
        "fraction": 0.05,
        "section": "test",
        "group": "supervised",
        "dice": {"overall": overall},
    }


def report(*scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "scores": list(scores),
        "section": "test",
        "fractions": [0.05],
        "runs": [],
        "simulated": True,
        "cohort": {"scored, test": "2 subjects"},
        "state": "",
        "verdicts": [],
    }


def test_a_method_of_fewer_seeds_is_compared_over_the_seeds_that_both_have() -> None:
    table = study_table(report(score("U-Net", [0, 2], [0.55, 0.45]), score("Other", [0], [0.54])))
    assert "| U-Net | 50.0 ± 2.0 |" in table
    assert "| Other | 54.0 (−1.0, 1 seed) |" in table  # not four points above the U-Net, as the means alone would say
    assert "the difference to U-Net over the same ones" in table


def test_equal_seeds_need_no_brackets() -> None:
    table = study_table(report(score("U-Net", [0, 2], [0.55, 0.45]), score("Other", [0, 2], [0.54, 0.5])))
    assert "| Other | 52.0 ± 2.0 |" in table
    assert "in brackets" not in table
