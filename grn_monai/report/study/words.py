"""What the numbers of a study mean, in plain words."""

from __future__ import annotations

from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.cells import points
from grn_monai.report.study.plan import counted

__all__ = ["conventions"]


def conventions(analysis: Analysis) -> list[tuple[str, str]]:
    """Term and explanation of everything that the tables use."""
    n = analysis.n_subjects
    exact = n <= 16
    floor = 2 / 2**n if exact else 1 / 20_001
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
            "changes weights, order of images and, below 100 % of the labels, which subjects are labelled. “SD over "
            "seeds” is the spread of the mean between trainings. Two methods are compared over the seeds both have.",
        ),
        ("±", "1.96·SD/√N over the N slices: the papers’ interval."),
        ("subjects", "95 % percentile bootstrap (2,000 resamples) that draws subjects with all their slices."),
        (
            "subjects and seeds",
            "The same, drawing seeds as well (in the CSV files); with two or three seeds a rough figure.",
        ),
        ("† t-test", "Two-sided paired t-test over slices, p < 0.05, no correction: the papers’ test."),
        (
            "* permutation",
            "Two-sided paired permutation test over subjects: the sign of each subject’s mean difference is flipped, "
            + (f"all 2ⁿ = {2**n:,} ways" if exact else "20,000 random ways")
            + f". With {counted(n, 'subject')} no p is below {floor:.2g}.",
        ),
        (
            "Holm",
            "Correction for making many tests: the chance of any false * in one table is at most 5 %. A table’s tests "
            "are one family; its notes give their number. Only overall Dice is tested.",
        ),
        (
            "Not inferior, equivalent",
            f"TOST, two one-sided paired t-tests with a margin of {points(analysis.margin)} of Dice, over subjects "
            "and, as in the papers’ unit, over slices. A t-test without a difference does not show that there is none.",
        ),
        ("–", "No score; the small line below says why. Nothing that failed is left out."),
    ]
