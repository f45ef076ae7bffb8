"""`data_prep split --folds`: files, sections and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_prep.cli import main
from grn_monai.data import datalist, read_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    content: dict = {"labels": {"0": "background", "1": "a"}, "training": []}
    data = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for s in range(8):
        entry = {"subject": f"s{s}", "scan": f"s{s}"}
        for kind, values in (("image", data), ("label", data % 2)):
            entry[kind] = f"{kind}s/s{s}.nii"
            (tmp_path / f"{kind}s").mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / entry[kind])
        content["training"].append(entry)
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_three_files_that_bundles_take(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(cohort), "--folds", "3", "--seed", "0"]) == 0
    printed = capsys.readouterr().out
    tested: list[str] = []
    for fold in (1, 2, 3):
        file = f"fold_{fold}.json"
        assert main(["check", str(cohort), "--split", file]) == 0
        assert read_cohort(cohort / file)["split"]["fold"] == fold
        names = {s: {i["subject"] for i in datalist(cohort, s, file)} for s in ("training", "validation", "test")}
        assert sum(map(len, names.values())) == len(set().union(*names.values())) == 8
        assert f"{file}: subjects: training {len(names['training'])}, validation 1" in printed
        tested += names["test"]
    assert sorted(tested) == [f"s{n}" for n in range(8)]
    before = [(cohort / f"fold_{n}.json").read_bytes() for n in (1, 2, 3)]
    assert main(["split", str(cohort), "--folds", "3"]) == 0
    assert [(cohort / f"fold_{n}.json").read_bytes() for n in (1, 2, 3)] == before


def test_other_folder_and_a_note_on_files_of_another_split(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count in ("3", "2"):
        assert main(["split", str(cohort), "--folds", count, "--validation", "0", "--out", str(cohort / "cv")]) == 0
    assert "fold_3.json is of another cross-validation" in capsys.readouterr().out
    assert read_cohort(cohort / "cv" / "fold_2.json")["validation"] == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--folds", "9"], "expected 2 to 8"),
        (["--folds", "1"], "expected 2 to 8"),
        (["--folds", "2", "--fraction", "5"], "--folds with --fraction"),
        (["--folds", "2", "--sizes", "4", "2", "2"], "--folds with --sizes"),
        (["--folds", "2", "--by", "image"], "--folds with --by image"),
        (["--folds", "2", "--validation", "x"], "--validation: found 'x'"),
        (["--folds", "2", "--validation", "0.95"], "4 of the 4 subjects who do not test"),
        (["--fraction", "5", "--validation", "0.1"], "--validation without --folds"),
    ],
)
def test_refusals(cohort: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    assert main(["split", str(cohort), *argv]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not list(cohort.glob("fold*"))


def test_a_reduced_file_is_refused(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(cohort), "--fraction", "50"]) == 0
    assert main(["split", str(cohort / "split_50.json"), "--folds", "2"]) == 2
    assert "already reduced" in capsys.readouterr().err
