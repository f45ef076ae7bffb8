"""Means, intervals and comparisons of a study, each computed once.

A slice's score is averaged over the seeds first; that average is the value behind every mean, interval and test. How
far seeds differ stands beside it. Comparisons take the seeds that both methods have: with a seed go its labelled
subjects, so unlike seeds would not pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.metrics.comparisons import Comparison, compare_paired, holm
from grn_monai.metrics.statistics import cluster_bootstrap_ci, crossed_bootstrap_ci, mean_ci
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.entrants import Entrant
from grn_monai.report.study.plan import counted

__all__ = ["COLUMNS", "OVERALL", "Analysis", "Family", "Place", "Summary"]

OVERALL = "overall"
COLUMNS: tuple[str, ...] = (*(LAYER_NAMES[label] for label in LAYERS), OVERALL)
"""The six layers, superficial to deep, and their mean."""

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
Scores = dict[int, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Place:
    """Where a comparison is made: one row of a table at one fraction of labels."""

    entrant: Entrant
    fraction: float


@dataclass(frozen=True)
class Summary:
    """Dice of one row, fraction and layer; fractions 0–1.

    Attributes:
        mean: over seeds and slices.
        ci: mean ± 1.96·SD/√N over slices, of scores averaged over seeds (the papers' interval).
        subject_ci: bootstrap that resamples subjects; None for one.
        seed_ci: bootstrap that resamples subjects and seeds; None for one of either.
        seed_sd: standard deviation over seeds of the mean; None for one seed.
        seeds: the seeds.
        n: slices.
        subjects: subjects.
    """

    mean: float
    ci: Interval | None
    subject_ci: Interval | None
    seed_ci: Interval | None
    seed_sd: float | None
    seeds: tuple[int, ...]
    n: int
    subjects: int


@dataclass(frozen=True)
class Family:
    """Comparisons that are corrected together: each place against its reference.

    Attributes:
        references: place to what it is compared with.
        comparisons: place to comparison.
        corrected: place to Holm-corrected p of the permutation test.
    """

    references: dict[Place, Place]
    comparisons: dict[Place, Comparison]
    corrected: dict[Place, float]

    @property
    def smallest(self) -> float:
        """The smallest corrected p that this family can give: with few subjects it may lie above 0.05."""
        floors = [c.permutation.smallest for c in self.comparisons.values()]
        return min(1.0, min(floors) * len(floors)) if floors else 1.0

    def differs(self, place: Place) -> bool:
        """Whether the place differs from its reference after correction, at 0.05."""
        return place in self.corrected and self.corrected[place] < 0.05

    def differs_by_slices(self, place: Place) -> bool:
        """Whether it does by the papers' test: paired t over slices, 0.05, uncorrected."""
        found = self.comparisons.get(place)
        return found is not None and found.p_t is not None and found.p_t < 0.05


class Analysis:
    """Scores of one section of a study.

    Args:
        results: the study.
        section: "test" or "validation".
        margin: margin of "not inferior", Dice fraction.
        seed: seed of bootstrap and resampling.
    """

    def __init__(self, results: StudyResults, section: str = "test", margin: float = 0.01, seed: int = 0) -> None:
        self.results, self.section, self.margin, self.seed = results, section, margin, seed
        rows = results.rows.get(section)
        self.subjects: tuple[str, ...] = rows.subjects if rows else ()
        self._summaries: dict[tuple[Place, str], Summary | None] = {}
        self._comparisons: dict[tuple[Place, Place, str], Comparison | None] = {}

    @property
    def n_subjects(self) -> int:
        """How many subjects are scored."""
        return len(set(self.subjects))

    def scores(self, place: Place, column: str = OVERALL) -> Scores:
        """Seed to (N,) slice Dice of a layer, or the mean of the six; empty where nothing was scored."""
        found = self.results.evaluations(
            place.entrant.method.key, place.fraction, section=self.section, mode=place.entrant.mode
        )
        index = COLUMNS.index(column)
        layer = slice(None) if column == OVERALL else slice(index, index + 1)
        return {seed: e.dice[:, layer].mean(axis=1) for seed, e in found.items()}

    def summary(self, place: Place, column: str = OVERALL) -> Summary | None:
        """Mean with its intervals; None where nothing was scored."""
        key = (place, column)
        if key not in self._summaries:
            self._summaries[key] = self._summarise(self.scores(place, column))
        return self._summaries[key]

    def _summarise(self, scores: Scores) -> Summary | None:
        if not scores:
            return None
        values: Floats = np.stack(list(scores.values())).astype(np.float64)
        rows = values.mean(axis=0)
        mean, ci, n = mean_ci(rows)
        return Summary(
            mean=mean,
            ci=ci,
            subject_ci=cluster_bootstrap_ci(rows, self.subjects, seed=self.seed),
            seed_ci=crossed_bootstrap_ci(values, self.subjects, seed=self.seed),
            seed_sd=float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None,
            seeds=tuple(scores),
            n=n,
            subjects=self.n_subjects,
        )

    def compare(self, place: Place, reference: Place, column: str = OVERALL) -> Comparison | None:
        """`place` against `reference` over the seeds that both have; None where there is none."""
        key = (place, reference, column)
        if key not in self._comparisons:
            self._comparisons[key] = self._compare(self.scores(place, column), self.scores(reference, column))
        return self._comparisons[key]

    def _compare(self, a: Scores, b: Scores) -> Comparison | None:
        shared = [seed for seed in a if seed in b]
        if not shared:
            return None
        first, second = (np.stack([scores[seed] for seed in shared]) for scores in (a, b))
        found = compare_paired(first, second, self.subjects, margin=self.margin, seed=self.seed)
        if len(shared) == max(len(a), len(b)):
            return found
        note = f"over the {counted(len(shared), 'seed')} that both have"
        return replace(found, note="; ".join(filter(None, [found.note, note])))

    def family(self, pairs: Sequence[tuple[Place, Place]]) -> Family:
        """Compare (place, reference) pairs and correct them together; pairs without scores are not in it."""
        found = {
            place: (reference, comparison)
            for place, reference in pairs
            if place != reference and (comparison := self.compare(place, reference)) is not None
        }
        corrected = holm([comparison.permutation.p for _, comparison in found.values()])
        return Family(
            references={place: reference for place, (reference, _) in found.items()},
            comparisons={place: comparison for place, (_, comparison) in found.items()},
            corrected={place: p for place, p in zip(found, corrected, strict=True) if p is not None},
        )

    def why_missing(self, place: Place) -> str:
        """One or two words on why a row has no score at a fraction."""
        runs = self.results.select(place.entrant.method.key, place.fraction)
        if not runs:
            return "not planned"
        states = [run.state for run in runs]
        if "failed" in states:
            return "failed"
        if "running" in states:
            return "running"
        if any(f"{self.section}_{place.entrant.mode}" in run.faults for run in runs):
            return "left out"
        return "not scored" if any(run.record for run in runs) else "not run"

    def seeds_missing(self, place: Place) -> tuple[int, int]:
        """(seeds scored, seeds planned) of a row at a fraction."""
        return len(self.scores(place)), len(self.results.select(place.entrant.method.key, place.fraction))
