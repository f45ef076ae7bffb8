"""Means, intervals and comparisons of a study, each computed once, for tables, verdicts and figures alike.

A slice's score is averaged over the seeds first; that average is the value behind every mean, interval and test. How
far seeds differ stands beside it. Comparisons take the seeds that both methods have: with a seed go its labelled
subjects, so unlike seeds would not pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.metrics.comparisons import Comparison, compare_paired, holm
from grn_monai.metrics.statistics import Groups, cluster_bootstrap_ci, crossed_ci, group_index, mean_ci
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.entrants import Place
from grn_monai.report.study.plan import counted
from grn_monai.report.study.questions import Family, families

__all__ = ["COLUMNS", "FEWEST", "OVERALL", "Analysis", "Place", "Summary", "analysis_of"]

OVERALL = "overall"
COLUMNS: tuple[str, ...] = (*(LAYER_NAMES[label] for label in LAYERS), OVERALL)
"""The six layers, superficial to deep, and their mean."""

FEWEST = 5
"""Subjects below which no bootstrap interval is shown: of three, it covers the truth three times in four."""

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
Scores = dict[int, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Summary:
    """Dice of one row, fraction and layer; fractions 0–1.

    Attributes:
        mean: over seeds and slices.
        ci: mean ± 1.96·SD/√N over slices, of scores averaged over seeds (the papers' interval).
        subject_ci: bootstrap that resamples subjects; None for fewer than `FEWEST`.
        seed_ci: t-interval for other subjects and other seeds; None for one of either.
        seed_sd: standard deviation over seeds of the mean; None for one seed.
        seeds: the seeds.
        seed_means: mean of each seed, in their order.
        n: slices.
        subjects: subjects.
    """

    mean: float
    ci: Interval | None
    subject_ci: Interval | None
    seed_ci: Interval | None
    seed_sd: float | None
    seeds: tuple[int, ...]
    seed_means: tuple[float, ...]
    n: int
    subjects: int


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
        self.subject_index, _ = group_index(self.subjects)
        self.families = families(results)
        self._corrected: dict[frozenset[Place], tuple[Family, float | None]] = {}
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

    def bootstrap(self, rows: Floats) -> Interval | None:
        """Bootstrap interval over subjects of the mean of (N,) values of the section's slices."""
        return self.bootstrap_of(rows, self.subject_index)

    def bootstrap_of(self, values: Floats, subjects: Groups) -> Interval | None:
        """Bootstrap interval over subjects of the mean of values, NaN left out; None for fewer than `FEWEST`."""
        if group_index(subjects)[1] < FEWEST:
            return None
        return cluster_bootstrap_ci(values, subjects, seed=self.seed)

    def _summarise(self, scores: Scores) -> Summary | None:
        if not scores:
            return None
        values: Floats = np.stack(list(scores.values())).astype(np.float64)
        rows = values.mean(axis=0)
        mean, ci, n = mean_ci(rows)
        return Summary(
            mean=mean,
            ci=ci,
            subject_ci=self.bootstrap(rows),
            seed_ci=crossed_ci(values, self.subject_index),
            seed_sd=float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None,
            seeds=tuple(scores),
            seed_means=tuple(values.mean(axis=1).tolist()),
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
        found = compare_paired(first, second, self.subject_index, margin=self.margin, seed=self.seed)
        if len(shared) == max(len(a), len(b)):
            return found
        note = f"over the {counted(len(shared), 'seed')} that both have"
        return replace(found, note="; ".join(filter(None, [found.note, note])))

    def family(self, place: Place, reference: Place) -> Family | None:
        """The family that the comparison is corrected in, whichever way round; None for one that is in none."""
        return self._judged().get(frozenset((place, reference)), (None, None))[0]

    def corrected(self, place: Place, reference: Place) -> float | None:
        """p of the permutation test after Holm over its family's planned size; None without scores or family."""
        return self._judged().get(frozenset((place, reference)), (None, None))[1]

    def _judged(self) -> dict[frozenset[Place], tuple[Family, float | None]]:
        if not self._corrected:
            for family in self.families:
                found = [self.compare(*pair) for pair in family.pairs]
                p = holm([c.permutation.p if c else None for c in found], len(family.pairs))
                for pair, value in zip(family.pairs, p, strict=True):
                    self._corrected[frozenset(pair)] = family, value
        return self._corrected

    def smallest(self, family: Family) -> float:
        """The smallest corrected p that a family can give: with few subjects it may lie above 0.05."""
        floor = 2.0 ** (1 - self.n_subjects) if self.n_subjects <= 16 else 1 / 20_001
        return min(1.0, floor * len(family.pairs))

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
        if "other settings" in states:
            return "other settings"
        if any(f"{self.section}_{place.entrant.mode}" in run.faults for run in runs):
            return "left out"
        return "not scored" if any(run.record for run in runs) else "not run"

    def seeds_missing(self, place: Place) -> tuple[int, int]:
        """(seeds scored, seeds planned) of a row at a fraction; from outside all of the study's seeds are wanted."""
        runs = self.results.select(place.entrant.method.key, place.fraction)
        outside = place.entrant.method.group == "outside"
        return len(self.scores(place)), max(len(runs), len(self.results.plan.seeds) if outside else 0)

    @property
    def most_seeds(self) -> int:
        """The largest number of seeds that any row has."""
        found = [len(self.scores(place)) for family in self.families for pair in family.pairs for place in pair]
        return max(found, default=0)


def analysis_of(results: StudyResults, section: str, margin: float = 0.01, seed: int = 0) -> Analysis:
    """The analysis of a section, made once: tables, verdicts and figures share its numbers.

    `margin` and `seed` count for the first call only.
    """
    if section not in results.analyses:
        results.analyses[section] = Analysis(results, section, margin, seed)
    found: Analysis = results.analyses[section]
    return found
