"""Left against right: the asymmetry of every pair of muscles of a scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from grn_monai.measure.sides import POINTS, paired_labels

__all__ = ["muscle_sides"]


def _measures(muscle: Mapping[str, Any], modality: str) -> Iterator[tuple[str, str, str, float | None]]:
    """Level (empty for the whole muscle), measure, unit and value."""
    yield "", "volume", "ml", muscle["volume_ml"]
    yield "", "area_mean", "cm²", muscle["area_mean_cm2"]
    yield "", "area_max", "cm²", muscle["area_max_cm2"]
    for level, part in (("", muscle), *((row["level"], row) for row in muscle["levels"])):
        if level:
            yield level, "area", "cm²", part["area_cm2"]
        if modality == "ct":
            yield level, "muscle_density", "HU", part["muscle_density_hu"]
            yield level, "low", "%", part["low_percent"]
        yield level, "fat", "%", part["fat_percent"]


def muscle_sides(scan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the pairs of a scan, whose names differ only in the words left and right.

    Args:
        scan: an entry of ``muscle.json``.

    Returns:
        One dict for each pair, level and measure: ``muscle`` (without the side), ``level`` (empty: whole muscle),
        ``measure``, ``unit``, ``left``, ``right``, ``difference`` (right − left, as `measure.sides.left_right`; of
        shares in percentage points), ``asymmetry_percent``, 100·(right − left) / mean of both, and ``check``. Where
        one side was not found, difference and index are None. So is the index where both are 0, and of densities,
        as the zero of the HU scale (water) is arbitrary.
    """
    muscles = {int(muscle["label"]): muscle for muscle in scan["muscles"]}
    pairs: dict[int, dict[str, Mapping[str, Any]]] = {}
    bare: dict[int, str] = {}
    for label, (name, side, left) in paired_labels({"layers": scan["muscles"]}).items():
        pairs.setdefault(left, {})[side] = muscles[label]
        bare[left] = name
    rows = []
    for label, pair in pairs.items():
        both = zip(*(_measures(pair[side], scan["modality"]) for side in ("left", "right")), strict=True)
        checks = [f"{side}: {pair[side]['check']}" for side in ("left", "right") if pair[side]["check"]]
        for (level, measure, unit, left), (_, _, _, right) in both:
            row: dict[str, Any] = {"muscle": bare[label], "level": level, "measure": measure}
            row |= {"unit": POINTS if unit == "%" else unit, "left": left, "right": right}
            row |= {"difference": None, "asymmetry_percent": None, "check": "; ".join(checks)}
            if left is not None and right is not None:
                row["difference"] = right - left
                if unit != "HU" and left + right > 0:
                    row["asymmetry_percent"] = 200 * (right - left) / (left + right)
            rows.append(row)
    return rows
