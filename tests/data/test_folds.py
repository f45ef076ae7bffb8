"""Cross-validation by subject: every subject is tested once, and nobody is on two sides."""

from __future__ import annotations

from typing import Any

import pytest

from grn_monai.data.folds import fold_cohort, folds
from grn_monai.errors import InputError

SECTIONS = ("training", "validation", "test")
NAMES = [f"p{n:02d}" for n in range(76)]


def cohort(subjects: int = 10, unlabelled: tuple[str, ...] = ()) -> dict[str, Any]:
    """Two scans of each subject, spread over the sections in a way that leaks."""
    items = [
        {"image": f"{s}_{k}.nii", "label": f"{s}_{k}_l.nii", "subject": s, "scan": f"{s}_{k}"}
        for s in (f"s{n}" for n in range(subjects))
        for k in (0, 1)
    ]
    bare = [{"image": f"{s}_u.nii", "subject": s, "scan": f"{s}_u"} for s in unlabelled]
    return {
        "labels": {"0": "background"},
        "training": items[::2],
        "validation": [],
        "test": items[1::2],
        "unlabeled": bare,
        "numTest": 99,
    }


def test_sizes_of_the_paper() -> None:
    made = folds(NAMES, 3, 0)
    assert sorted(map(len, made)) == [25, 25, 26]
    assert sorted(name for fold in made for name in fold) == NAMES


def test_the_seed_and_the_names_alone_decide() -> None:
    assert folds(NAMES, 3, 0) == folds([*reversed(NAMES), "p05"], 3, 0)
    assert folds(NAMES, 3, 0) != folds(NAMES, 3, 1)


@pytest.mark.parametrize("count", [0, 1, 4, True, 2.0])
def test_counts_that_do_not_fit(count: Any) -> None:
    with pytest.raises(InputError, match="expected 2 to 3"):
        folds(["a", "b", "c"], count)


def test_every_subject_is_tested_once_and_none_is_on_two_sides() -> None:
    tested: list[str] = []
    validated: list[str] = []
    for fold in (1, 2, 3):
        new = fold_cohort(cohort(), fold, 3, 0, 0.2)
        names = [{item["subject"] for item in new[section]} for section in SECTIONS]
        assert len(set().union(*names)) == sum(map(len, names)) == 10
        assert sum(len(new[section]) for section in SECTIONS) == 20
        assert all(len(new[section]) == 2 * len(group) for section, group in zip(SECTIONS, names, strict=True))
        assert len(names[1]) == 1  # 0.2 of 6 or 7
        assert new["numTest"] == len(new["test"])
        assert new["split"]["subjects"] == dict(zip(SECTIONS, map(len, names), strict=True))
        tested += sorted(names[2])
        validated += names[1]
    assert sorted(tested) == sorted({item["subject"] for item in cohort()["training"]})
    assert len(set(validated)) > 1


def test_no_validation() -> None:
    new = fold_cohort(cohort(), 1, validation=0)
    assert new["validation"] == []
    assert new["split"]["subjects"] == {"training": 6, "validation": 0, "test": 4}


def test_unlabelled_scans_of_tested_subjects_are_left_out() -> None:
    everyone = tuple(f"s{n}" for n in range(10))
    for fold in (1, 2):
        new = fold_cohort(cohort(unlabelled=(*everyone, "stranger")), fold, 2, 0, 0.4)
        trained = {item["subject"] for item in new["training"]}
        assert {item["subject"] for item in new["unlabeled"]} == trained | {"stranger"}
        assert new["split"]["unlabelled_left_out"] == 10 - len(trained)


def test_refusals() -> None:
    with pytest.raises(InputError, match="expected 1 to 3"):
        fold_cohort(cohort(), 4)
    with pytest.raises(InputError, match="3 of the 3 subjects who do not test"):
        fold_cohort(cohort(4), 1, 4, 0, 0.9)
    for key in ("subject", "label"):
        broken = cohort()
        del broken["test"][0][key]
        with pytest.raises(InputError, match=f"no `{key}` in 1 items"):
            fold_cohort(broken, 1)
