"""`data_prep split`: shares, nesting, new sections, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_prep.cli import main
from data_prep.commands.split import parse_fraction
from grn_monai.data.cohort import datalist, read_cohort
from grn_monai.errors import InputError


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Twenty training scans of ten subjects, two of them with more slices, and one validation and test subject."""
    content: dict = {"labels": {"0": "background", "1": "a"}, "numTraining": 20, "numUnlabeled": 0}
    for section, subjects, scans in (("training", range(1, 11), 2), ("validation", [11], 1), ("test", [12, 13], 1)):
        content[section] = []
        for s in subjects:
            for k in range(scans):
                shape = (6, 4, 3) if s == 1 else (3, 2, 3)
                data = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
                entry = {"subject": f"s{s}", "scan": f"s{s}_{k}"}
                for kind, values in (("image", data), ("label", data % 2)):
                    entry[kind] = f"{kind}s/s{s}_{k}.nii"
                    (tmp_path / f"{kind}s").mkdir(exist_ok=True)
                    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / entry[kind])
                content[section].append(entry)
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "value"), [("0.05", 0.05), ("5", 0.05), ("5%", 0.05), ("5 %", 0.05), ("1", 1), ("1%", 0.01), ("100", 1)]
)
def test_parse_fraction(text: str, value: float) -> None:
    assert parse_fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["0", "-5", "101", "five", "", "%", "nan"])
def test_parse_fraction_refuses(text: str) -> None:
    with pytest.raises(InputError, match="--fraction"):
        parse_fraction(text)


def test_split_file(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(cohort), "--fraction", "0.3", "--seed", "2"]) == 0
    out = cohort / "split_30_seed2.json"
    new, old = read_cohort(out), read_cohort(cohort)
    assert new["validation"] == old["validation"]
    assert new["test"] == old["test"]
    labelled = {i["subject"] for i in new["training"]}
    assert not labelled & {i["subject"] for i in new["unlabeled"]}
    assert not any("label" in i for i in new["unlabeled"])
    assert len(new["training"]) + len(new["unlabeled"]) == 20
    assert (new["numTraining"], new["numUnlabeled"]) == (len(new["training"]), len(new["unlabeled"]))
    # Slices of both planes: 2 · (6 + 4) of subject 1, 2 · (3 + 2) of each of the nine others, 110 in all.
    share = sum(20 if s == "s1" else 10 for s in labelled) / 110
    assert abs(share - 0.3) < 20 / 110
    assert new["split"] == {
        "fraction": 0.3,
        "share": pytest.approx(share, abs=1e-6),
        "training_scans": 20,
        "seed": 2,
        "by": "subject",
        "labelled_subjects": sorted(labelled),
    }
    printed = capsys.readouterr().out
    assert f"{100 * share:.1f} % of the images (asked: 30 %)" in printed
    assert all(s in printed for s in labelled)
    assert main(["check", str(cohort), "--split", out.name]) == 0


def test_nested_and_like_datalist(cohort: Path) -> None:
    chosen = []
    for percent, name in ((5, "split_05.json"), (20, "split_20.json"), (50, "split_50.json")):
        assert main(["split", str(cohort), "--fraction", str(percent)]) == 0
        chosen.append({i["subject"] for i in datalist(cohort, "training", split=name)})
    assert chosen[0] < chosen[1] < chosen[2]
    first = sorted(chosen[0])
    assert sorted({i["subject"] for i in datalist(cohort, "training", fraction=0.05)}) == first


@pytest.mark.parametrize(("option", "axis"), [([], 2), (["--depth-axis", "0"], 0), (["--depth-axis", "P"], "P")])
def test_split_and_datalist_choose_the_same_where_scans_differ(cohort: Path, option: list, axis: int | str) -> None:
    # Sizes along the three axes that would give three answers, were another pair of them counted.
    for s in range(1, 11):
        for k in range(2):
            data = np.zeros((2 + 7 * (s % 2), 2 + 5 * (s % 3), 2 + 9 * (s % 4)), np.uint8)
            for kind in ("image", "label"):
                nib.save(nib.Nifti1Image(data, np.eye(4)), cohort / f"{kind}s/s{s}_{k}.nii")
    for percent in (10, 30, 45, 60, 80):
        out = cohort / "mine.json"
        assert main(["split", str(cohort), "--fraction", str(percent), "--out", str(out), *option]) == 0
        for section in ("training", "unlabeled"):
            expected = datalist(cohort, section, fraction=percent / 100, depth_axis=axis)
            assert read_cohort(out)[section] == expected


def test_by_image(cohort: Path) -> None:
    assert main(["split", str(cohort), "--fraction", "0.5", "--by", "image"]) == 0
    new = read_cohort(cohort / "split_50_image.json")
    assert {i["subject"] for i in new["training"]} & {i["subject"] for i in new["unlabeled"]}


def test_out_in_another_folder(cohort: Path) -> None:
    out = cohort / "splits" / "deep" / "mine.json"
    assert main(["split", str(cohort), "--fraction", "10", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["test"][0]["image"] == "../../images/s12_0.nii"
    assert len(read_cohort(out)["test"]) == 2


def test_sizes_share_all_subjects_out_again(cohort: Path) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    content["training"] += content.pop("validation") + content.pop("test")
    (cohort / "all.json").write_text(json.dumps(content))
    assert main(["split", str(cohort / "all.json"), "--sizes", "6", "3", "4", "--seed", "1"]) == 0
    new = read_cohort(cohort / "split_seed1.json")
    subjects = {s: {i["subject"] for i in new[s]} for s in ("training", "validation", "test")}
    assert [len(subjects[s]) for s in subjects] == [6, 3, 4]
    assert set().union(*subjects.values()) == {f"s{n}" for n in range(1, 14)}
    assert sum(len(new[s]) for s in subjects) == 23
    assert main(["split", str(cohort / "all.json"), "--sizes", "6", "3", "4", "--seed", "1", "--fraction", "50"]) == 0
    half = read_cohort(cohort / "split_50_seed1.json")
    assert {i["subject"] for i in half["training"] + half["unlabeled"]} == subjects["training"]


def test_sizes_mend_a_leak_and_keep_unlabelled_subjects_in_training(cohort: Path) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    moved = content["training"].pop(0)
    content["test"].append(moved)
    last = content["training"].pop()
    del last["label"]
    content["unlabeled"] = [last]
    (cohort / "leaky.json").write_text(json.dumps(content))
    assert main(["split", str(cohort / "leaky.json"), "--fraction", "5"]) == 2
    assert main(["split", str(cohort / "leaky.json"), "--sizes", "1", "2", "10"]) == 0
    new = read_cohort(cohort / "split.json")
    assert {i["subject"] for i in new["training"]} == {"s10"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "neither --fraction nor --sizes"),
        (["--fraction", "0"], "--fraction: found '0'"),
        (["--sizes", "5", "5", "5"], "5 + 5 + 5 = 15; expected the cohort's 13 subjects"),
        (["--sizes", "0", "6", "7"], "at least one of them in training"),
        (["--sizes", "14", "0", "-1"], "expected the cohort's 13 subjects"),
        (["--fraction", "5", "--out", "{cohort}/dataset.json"], "the cohort's own dataset.json"),
        (["--fraction", "5", "--out", "{cohort}"], "a new file"),
    ],
)
def test_refusals(cohort: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    before = (cohort / "dataset.json").read_bytes()
    assert main(["split", str(cohort), *(a.format(cohort=cohort) for a in argv)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert (cohort / "dataset.json").read_bytes() == before


def test_reduced_file_is_not_reduced_again(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["split", str(cohort), "--fraction", "50"])
    assert main(["split", str(cohort / "split_50.json"), "--fraction", "5"]) == 2
    assert "already reduced" in capsys.readouterr().err


def test_unreadable_volume(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cohort / "images/s3_0.nii").write_bytes(b"nothing")
    assert main(["split", str(cohort), "--fraction", "5"]) == 2
    assert "s3_0.nii" in capsys.readouterr().err


def test_sizes_need_subjects(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    for entry in content["training"] + content["validation"] + content["test"]:
        del entry["subject"]
    (cohort / "bare.json").write_text(json.dumps(content))
    assert main(["split", str(cohort / "bare.json"), "--sizes", "5", "5", "3"]) == 2
    assert "no `subject` in 23 items" in capsys.readouterr().err
