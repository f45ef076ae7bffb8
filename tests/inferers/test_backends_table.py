"""The benchmark of the backends: when one pays, and the words of docs/export.md that follow from the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks._backends import backends_table
from benchmarks.backends import pays_from


@pytest.mark.parametrize(
    ("start_up", "seconds", "expected"),
    [(1.4, 2.0, 2), (0.9, 2.0, 1), (0.0, 2.9, 1), (10.1, 2.0, 11), (0.1, 3.0, None)],
)
def test_break_even_of_the_benchmark(start_up: float, seconds: float, expected: int | None) -> None:
    eager = {"start_up": 0.1, "seconds": 3.0}
    entry = {"start_up": start_up, "seconds": seconds}
    assert pays_from(entry, eager) == expected
    if expected is not None:
        spent = [e["start_up"] + expected * e["seconds"] for e in (entry, eager)]
        assert spent[0] < spent[1]
        if expected > 1:
            assert spent[0] - entry["seconds"] >= spent[1] - eager["seconds"]


def result(pays: list[int | None], exact: bool = True, bfloat16: bool | None = True) -> dict[str, Any]:
    """A result with one backend beside torch, in bfloat16 too."""
    eager = {"start_up": 0.1, "seconds": 3.0, "over_eager": 1.0, "max_difference": 0.0, "exact": True,
             "different_labels": 0, "pays_from_scan": None}  # fmt: skip
    cases: dict[str, Any] = {}
    for case, scan in zip(("sge_128", "unet_128"), pays, strict=True):
        graph = {**eager, "max_difference": 3e-6 if exact else 3e-4, "exact": exact, "pays_from_scan": scan}
        half = {**eager, "max_difference": 2e-2, "exact": False, "pays_from_scan": 1}
        cases[case] = {"eager": eager, "openvino": graph, "openvino_bf16": half}
    return {"shape": [128, 128, 256], "rounds": 3, "batch_size": 8, "threads": 2, "exact": 1e-4, "cases": cases,
            "processor_has_bfloat16": bfloat16, "digest": {"weights": 4_300_000, "seconds": 0.0247}}  # fmt: skip


@pytest.mark.parametrize(
    ("pays", "words", "default"),
    [
        ([2, 5], "`openvino` from scan 2 to 5 on in 2 of 2 rows.", "None pays from the first scan"),
        ([None, 3], "`openvino` from scan 3 on in 1 of 2 rows.", "None pays from the first scan"),
        ([None, None], "`openvino` in none of 2 rows.", "None pays from the first scan"),
        ([1, 1], "`openvino` from scan 1 on in 2 of 2 rows.", "`openvino` would pay from the first scan in all rows"),
    ],
)
def test_the_default_follows_from_the_numbers(pays: list[int | None], words: str, default: str) -> None:
    text = backends_table(result(pays))
    assert words in text
    assert default in text
    assert "25 ms for 4.3 million" in text
    assert "Within 1e-04 of `torch` in all rows: `openvino`. Not so: `openvino`, `amp`." in text


def test_what_is_not_exact_cannot_pay() -> None:
    text = backends_table(result([1, 1], exact=False))
    assert "in all rows: none. Not so: `openvino`; `openvino`, `amp`." in text
    assert "in float32: none. None pays from the first scan" in text


@pytest.mark.parametrize(("has", "words"), [(True, "computes with"), (False, "has no"), (None, "may or may not")])
def test_rows_in_bfloat16_say_what_the_processor_has(has: bool | None, words: str) -> None:
    assert f"Rows with `amp`: the processor {words}" in backends_table(result([2, 2], bfloat16=has))
