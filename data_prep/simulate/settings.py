"""What a simulated cohort is made of, checked before anything is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from grn_monai.errors import InputError

__all__ = ["PUBLISHED_SCANS", "PUBLISHED_SUBJECTS", "SIMULATOR_VERSION", "Scan", "Settings", "plan_scans", "share_out"]

SIMULATOR_VERSION = 1
"""Raised whenever the same options would give other volumes, so that two versions are never mixed."""

PUBLISHED_SUBJECTS = (16, 2, 11)
PUBLISHED_SCANS = (44, 2, 23)
"""Training, validation and test of the GRN papers: 29 participants, 69 scans."""

MIN_SHAPE = (16, 16, 32)


@dataclass(frozen=True)
class Settings:
    """Options that decide what the volumes look like and how they are split.

    Args:
        split: subjects in training, validation and test.
        split_scans: scans in training, validation and test.
        shape: voxels (X, Y, Z), Z is depth.
        extent_mm: size of the volume in mm.
        seed: of everything drawn.
        dynamic_range_db: bounds of the displayed dynamic range.
        repeats: how often each place is scanned; scans are counted without the repeats.
    """

    split: tuple[int, int, int] = PUBLISHED_SUBJECTS
    split_scans: tuple[int, int, int] = PUBLISHED_SCANS
    shape: tuple[int, int, int] = (128, 128, 256)
    extent_mm: tuple[float, float, float] = (25.6, 25.6, 38.4)
    seed: int = 0
    dynamic_range_db: tuple[float, float] = (42.0, 58.0)
    repeats: int = 1

    def __post_init__(self) -> None:
        for part, subjects, scans in zip(("training", "validation", "test"), self.split, self.split_scans, strict=True):
            if subjects < 0 or scans < subjects or (subjects == 0 and scans > 0):
                raise InputError(
                    "--split and --split-scans",
                    f"{scans} scans for {subjects} subjects in {part}",
                    "at least one scan for each subject, and none without a subject",
                    f"Give {part} at least {max(subjects, 1)} scans and one subject, or neither.",
                )
        if self.split[0] < 1:
            raise InputError("--split", f"{self.split[0]} training subjects", "at least 1", "Give training one.")
        if any(n < low for n, low in zip(self.shape, MIN_SHAPE, strict=True)):
            raise InputError(
                "--shape",
                " ".join(map(str, self.shape)),
                f"at least {' '.join(map(str, MIN_SHAPE))}",
                "Coarser voxels cannot show a fascia of 1 mm; use a larger shape.",
            )
        if any(not 5 <= e <= 200 for e in self.extent_mm):
            found = " ".join(f"{e:g}" for e in self.extent_mm)
            raise InputError("--extent", f"{found} mm", "5 to 200 mm", "Give three sizes in mm.")
        low, high = self.dynamic_range_db
        if not 20 <= low <= high <= 120:
            mend = "Give the lower bound first."
            raise InputError("--dynamic-range", f"{low:g} {high:g} dB", "20 ≤ low ≤ high ≤ 120 dB", mend)
        if self.repeats < 1:
            raise InputError("--repeats", str(self.repeats), "1 or more", "Give how often each place is scanned.")
        if self.seed < 0:
            raise InputError("--seed", str(self.seed), "0 or more", "Use a whole number from 0.")

    def record(self) -> dict[str, Any]:
        """Write the settings down as JSON knows them, with the simulator's version."""
        record = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if self.repeats == 1:  # as cohorts were recorded before there were repeats
            del record["repeats"]
        return {"simulator_version": SIMULATOR_VERSION, **record}


@dataclass(frozen=True)
class Scan:
    """One scan of the plan: section of the cohort, numbers from 1, and file name.

    `number` counts the subject's scans, `place` the places where they were taken, `repeat` the scans of one place.
    """

    section: str
    subject: int
    number: int
    place: int
    repeat: int

    @property
    def subject_name(self) -> str:
        return f"sub-{self.subject:03d}"

    @property
    def name(self) -> str:
        return f"{self.subject_name}_scan-{self.number}"


def share_out(total: int, parts: tuple[int, int, int], least: tuple[int, int, int]) -> tuple[int, int, int]:
    """Divide `total` in proportion to `parts` (largest remainders), with at least `least` in each.

    Raises:
        ValueError: `total` is below the sum of `least`.
    """
    if total < sum(least):
        raise ValueError(f"{total} cannot give {least}")
    spare = total - sum(least)
    # What each part lacks to its proportional share decides who gets the spare ones.
    want = [max(total * p / sum(parts) - low, 0.0) for p, low in zip(parts, least, strict=True)]
    scale = spare / sum(want) if sum(want) else 0.0
    given = [int(w * scale + 1e-9) for w in want]
    order = sorted(range(3), key=lambda i: (given[i] - want[i] * scale, i))
    for i in order[: spare - sum(given)]:
        given[i] += 1
    first, second, third = (low + g for low, g in zip(least, given, strict=True))
    return first, second, third


def plan_scans(settings: Settings) -> list[Scan]:
    """List the scans of a cohort: subjects numbered through training, validation and test.

    Within a section every subject has one scan, and the others go round in a seeded order, so that numbers
    differ by at most one.
    """
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(0,)))
    plan: list[Scan] = []
    first = 1
    for section, subjects, scans in zip(
        ("training", "validation", "test"), settings.split, settings.split_scans, strict=True
    ):
        if not subjects:
            continue
        each = np.full(subjects, scans // subjects)
        each[rng.permutation(subjects)[: scans % subjects]] += 1
        for i, count in enumerate(each):
            for number in range(int(count) * settings.repeats):
                place, repeat = divmod(number, settings.repeats)
                plan.append(Scan(section, first + i, number + 1, place + 1, repeat + 1))
        first += subjects
    return plan
