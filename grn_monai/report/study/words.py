"""What the numbers of a study mean, in plain words."""

from __future__ import annotations

from grn_monai.report.study.analysis import FEWEST, Analysis
from grn_monai.report.study.cells import points
from grn_monai.report.study.plan import counted, fraction_text

__all__ = ["conventions"]


def conventions(analysis: Analysis) -> list[tuple[str, str]]:
    """Term and explanation of everything that the tables use."""
    n = analysis.n_subjects
    exact = n <= 16
    floor = 2 / 2**n if exact else 1 / 20_001
    names = [f"{f.name} at {fraction_text(f.fraction)}: {len(f.pairs)}" for f in analysis.families]
    families = f"Here: {'; '.join(names)}. " if names else ""
    return [
        (
            "Dice",
            "2|P∩G|/(|P|+|G|) of every slice and layer on argmax masks, in %; a layer that both lack scores 100, one "
            "predicted where the truth lacks it 0, so every layer has the same number of slices. Background is not "
            "scored. Overall: mean of the six layers of a slice.",
        ),
        (
            "Unit",
            "The papers take the slice as unit: thousands of slices of a few subjects, as if independent. Slices of a "
            f"subject are alike, so their intervals are too narrow and their p too small. Scored here: "
            f"{counted(n, 'subject')}. What is called “over subjects” takes the subject as unit and is the one to "
            "believe, though with few subjects it says little.",
        ),
        (
            "Seeds",
            "A slice’s score is averaged over the seeds first; means, intervals and tests are of that average. A seed "
            "changes weights, order of images and the draw of labelled subjects; where seeds drew the same ones, the "
            "facts of the cohort say so. “SD over seeds” is the spread of the mean between trainings. Two methods are "
            "compared over the seeds both have.",
        ),
        ("±", "1.96·SD/√N over the N slices: the papers’ interval."),
        (
            "subjects",
            "Of a mean: 95 % percentile bootstrap (2,000 resamples) that draws subjects with all their slices; too "
            f"narrow with few subjects (nominal 95 % are some 90 % with eleven), so none below {FEWEST}. Of a "
            "difference: the permutation test inverted, which holds zero exactly where p ≥ 0.05 before correction; "
            "none below six subjects.",
        ),
        (
            "and seeds",
            "95 % t-interval for other subjects and other trainings: both variances count, each with its own degrees "
            "of freedom. With two or three seeds that differ it is wide.",
        ),
        (
            "Difference",
            "Mean over subjects of each subject’s mean difference: what test, interval, TOST and verdict are about. "
            "The mean over slices stands beside the papers’ t-test; where subjects have unlike numbers of slices the "
            "two differ, and a note says when their signs do.",
        ),
        ("† t-test", "Two-sided paired t-test over slices, p < 0.05, no correction: the papers’ test."),
        (
            "* permutation",
            "Two-sided paired permutation test over subjects: the sign of each subject’s mean difference is flipped, "
            + (f"all 2ⁿ = {2**n:,} ways" if exact else "20,000 random ways")
            + f". With {counted(n, 'subject')} no p is below {floor:.2g}. A * also needs two seeds and an interval "
            "over subjects and seeds without zero; (*) lacks that: it holds for these trainings only.",
        ),
        (
            "Holm",
            "Correction for making many tests: the chance of any false * in one family is at most 5 %. A comparison "
            "is in one family and has one corrected p wherever it stands; families have their planned size from the "
            f"start. {families}Only overall Dice is tested; results from outside are not.",
        ),
        (
            "Not inferior, equivalent",
            f"TOST, two one-sided paired t-tests with a margin of {points(analysis.margin)} of Dice, over subjects "
            "and, as in the papers’ unit, over slices; uncorrected unless a "
            "column says Holm. A t-test without a difference does not show that there is none.",
        ),
        ("–", "No score; the small line below says why. Nothing that failed is left out."),
    ]
