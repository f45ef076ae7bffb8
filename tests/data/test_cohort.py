"""Cohort files: reading, the faults they are refused for, and the labelled share."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from grn_monai.data.cohort import cohort_faults, datalist, load_cohort, read_cohort, select_labelled
from grn_monai.errors import InputError

LABELS = {"0": "background", "1": "dermis"}


def item(subject: int, scan: int = 1, label: bool = True) -> dict[str, str]:
    name = f"s{subject}_{scan}"
    out = {"image": f"images/{name}.nii.gz", "subject": f"s{subject}", "scan": name}
    return {**out, "label": f"labels/{name}.nii.gz"} if label else out


def write(folder: Path, content: object, name: str = "dataset.json") -> Path:
    """Write a cohort file and (empty) files for every path that it names."""
    if isinstance(content, dict):
        for section in ("training", "validation", "test", "unlabeled"):
            for entry in content.get(section, []):
                for key in ("image", "label"):
                    if isinstance(entry, dict) and isinstance(entry.get(key), str):
                        path = folder / entry[key]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.touch()
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Ten training subjects with two scans each, one validation and two test subjects."""
    training = [item(s, k) for s in range(1, 11) for k in (1, 2)]
    content = {"labels": LABELS, "training": training, "validation": [item(20)], "test": [item(21), item(22)]}
    return write(tmp_path, content)


class TestReadCohort:
    def test_paths_are_absolute_and_all_sections_present(self, cohort: Path) -> None:
        read = read_cohort(cohort)
        assert read["training"][0]["image"] == str(cohort.resolve() / "images/s1_1.nii.gz")
        assert [len(read[s]) for s in ("training", "validation", "test", "unlabeled")] == [20, 1, 2, 0]
        assert read == read_cohort(cohort / "dataset.json")

    def test_relative_folder(self, cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(cohort.parent)
        assert Path(read_cohort(cohort.name)["test"][1]["label"]).is_absolute()

    def test_decathlon_test_list_of_strings(self, tmp_path: Path) -> None:
        write(tmp_path, {"labels": LABELS, "training": [], "test": ["imagesTs/a.b.nii.gz"]})
        (tmp_path / "imagesTs").mkdir()
        (tmp_path / "imagesTs/a.b.nii.gz").touch()
        assert read_cohort(tmp_path)["test"] == [
            {"image": str(tmp_path.resolve() / "imagesTs/a.b.nii.gz"), "scan": "a"}
        ]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", ["no valid JSON", "line 1"]),
            ("[]", ["a JSON list"]),
            ('{"training": []}', ["no 'labels'", "`labels`"]),
            ('{"labels": {"0": "background"}}', ["no 'training'"]),
            ('{"labels": ["a"], "training": []}', ["`labels`", '"dermis"']),
            ('{"labels": {"one": "a"}, "training": []}', ["`labels`"]),
            ('{"labels": {"0": "a"}, "training": {}}', ["'training' is a dict"]),
            ('{"labels": {"0": "a"}, "training": [3]}', ["an item of 'training' is 3", "`image`"]),
        ],
    )
    def test_unusable_file(self, tmp_path: Path, content: str, words: list[str]) -> None:
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(InputError) as error:
            read_cohort(tmp_path)
        assert all(word in str(error.value) for word in [str(tmp_path / "dataset.json"), *words])

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            read_cohort(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"training": [{"label": "l.nii", "subject": "a"}]}, "training[0] has no `image`"),
            ({"training": [item(1, label=False)]}, "training[0] has no `label`"),
            ({"validation": [item(1, label=False)]}, "validation[0] has no `label`"),
            ({"unlabeled": [item(1)]}, "unlabeled[0] has a `label`"),
            ({"test": [{"image": "x.nii"}]}, "test[0] has no `subject`"),
            ({"test": [{**item(30), "scan": "s3_1"}]}, "scan s3_1 is listed twice (training[4] and test[0])"),
            ({"test": [{**item(30), "image": item(3)["image"]}]}, "is listed twice"),
            ({"test": [item(3, 3)]}, "subject s3 is in training and test"),
            ({"validation": [item(40)], "test": [item(40, 2)]}, "subject s40 is in validation and test"),
            ({"test": [item(30)], "unlabeled": [item(30, 2, label=False)]}, "subject s30 is in training and test"),
        ],
    )
    def test_faulty_items(self, cohort: Path, change: dict, fault: str) -> None:
        write(cohort, {**json.loads((cohort / "dataset.json").read_text()), **change})
        with pytest.raises(InputError) as error:
            read_cohort(cohort)
        assert fault in str(error.value)

    def test_missing_files_are_listed_up_to_ten(self, cohort: Path) -> None:
        for path in (cohort / "labels").iterdir():
            path.unlink()
        with pytest.raises(InputError) as error:
            read_cohort(cohort)
        assert "23 faults" in str(error.value)
        assert str(error.value).count("does not exist") == 10
        assert "13 more" in str(error.value)
        assert len(cohort_faults(load_cohort(cohort)[0])) == 23

    def test_unlabeled_may_share_a_subject_with_training(self, cohort: Path) -> None:
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "unlabeled": [item(1, 9, label=False)]})
        assert len(read_cohort(cohort)["unlabeled"]) == 1


SIXTEEN = [item(s, k) for s in range(1, 17) for k in (1, 2, 3)]


class TestSelectLabelled:
    @pytest.mark.parametrize(
        ("fraction", "subjects"), [(0.05, 1), (0.1, 2), (0.2, 3), (0.3, 5), (0.4, 6), (0.5, 8), (1.0, 16)]
    )
    def test_nearest_share_of_sixteen_equal_subjects(self, fraction: float, subjects: int) -> None:
        # 16 · 0.05 = 0.8, 1.6, 3.2, 4.8, 6.4, 8: the nearest whole number of subjects, at least one.
        labelled, rest, share = select_labelled(SIXTEEN, fraction, seed=3)
        assert len({i["subject"] for i in labelled}) == subjects
        assert share == pytest.approx(subjects / 16)
        assert len(labelled) == 3 * subjects
        assert len(labelled) + len(rest) == 48
        assert all("label" in i for i in labelled)
        assert not any("label" in i for i in rest)
        assert not {i["subject"] for i in labelled} & {i["subject"] for i in rest}

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("by", ["subject", "image"])
    def test_nested(self, seed: int, by: str) -> None:
        chosen = [
            {i["scan"] for i in select_labelled(SIXTEEN, f, seed, by)[0]} for f in (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1)
        ]
        assert all(small <= large for small, large in pairwise(chosen))

    def test_order_of_items_does_not_matter_and_is_kept(self) -> None:
        shuffled = random.Random(0).sample(SIXTEEN, len(SIXTEEN))
        one, two = select_labelled(SIXTEEN, 0.3)[0], select_labelled(shuffled, 0.3)[0]
        assert {i["scan"] for i in one} == {i["scan"] for i in two}
        assert two == [i for i in shuffled if i in two]

    def test_another_seed_chooses_others(self) -> None:
        chosen = {select_labelled(SIXTEEN, 0.05, seed)[0][0]["subject"] for seed in range(20)}
        assert len(chosen) > 5

    def test_by_image_splits_subjects(self) -> None:
        labelled, _, share = select_labelled(SIXTEEN, 0.25, by="image")
        assert (len(labelled), share) == (12, 0.25)
        assert len({i["subject"] for i in labelled}) > 4

    def test_weights_decide_the_share(self) -> None:
        items = [item(1), item(2), item(3)]
        # Whoever comes first has all but two of the hundred images: one subject already overshoots 50 %.
        first = select_labelled(items, 0.01)[0][0]["subject"]
        weights = [98 if i["subject"] == first else 1 for i in items]
        labelled, _, share = select_labelled(items, 0.5, weights=weights)
        assert [i["subject"] for i in labelled] == [first]
        assert share == pytest.approx(0.98)

    def test_no_subjects_means_one_per_scan(self) -> None:
        items = [{k: v for k, v in i.items() if k != "subject"} for i in SIXTEEN]
        assert len(select_labelled(items, 0.25)[0]) == 12

    def test_input_is_left_alone(self) -> None:
        items = [item(1), item(2)]
        select_labelled(items, 0.5)
        assert items == [item(1), item(2)]

    @pytest.mark.parametrize(
        ("kwargs", "word"),
        [
            ({"fraction": 0}, "fraction"),
            ({"fraction": 1.01}, "fraction"),
            ({"fraction": True}, "fraction"),
            ({"fraction": float("nan")}, "fraction"),
            ({"fraction": "0.5"}, "fraction"),
            ({"fraction": 0.5, "by": "slice"}, "'subject' or 'image'"),
            ({"fraction": 0.5, "weights": [1.0]}, "weights"),
            ({"fraction": 0.5, "weights": [0.0] * 48}, "weights"),
        ],
    )
    def test_refusals(self, kwargs: dict, word: str) -> None:
        with pytest.raises(InputError, match=word):
            select_labelled(SIXTEEN, **kwargs)

    def test_some_subjects_missing(self) -> None:
        with pytest.raises(InputError, match="`subject` in 1 of 2 items"):
            select_labelled([item(1), {"image": "a"}], 0.5)
        with pytest.raises(InputError, match="no items"):
            select_labelled([], 0.5)


class TestDatalist:
    def test_labelled_and_unlabelled_make_up_the_training_section(self, cohort: Path) -> None:
        labelled = datalist(cohort, "training", fraction=0.2)
        rest = datalist(cohort, "unlabeled", fraction=0.2)
        assert (len(labelled), len(rest)) == (4, 16)
        assert {i["scan"] for i in labelled + rest} == {i["scan"] for i in datalist(cohort, "training")}
        assert not any("label" in i for i in rest)

    def test_own_unlabeled_items_come_first(self, cohort: Path) -> None:
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "unlabeled": [item(50, label=False)]}, "more.json")
        rest = datalist(cohort, "unlabeled", split="more.json", fraction=0.5)
        assert rest[0]["scan"] == "s50_1"
        assert len(rest) == 11

    def test_other_sections_ignore_the_fraction(self, cohort: Path) -> None:
        assert len(datalist(str(cohort), "test", fraction=0.05)) == 2

    def test_refusals(self, cohort: Path) -> None:
        with pytest.raises(InputError, match="one of training, validation, test, unlabeled"):
            datalist(cohort, "train")
        with pytest.raises(InputError, match="fraction"):
            datalist(cohort, "training", fraction=5)
        with pytest.raises(InputError, match="no items in 'unlabeled'"):
            datalist(cohort, "unlabeled")
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "split": {"fraction": 0.1}}, "reduced.json")
        with pytest.raises(InputError, match="already reduced"):
            datalist(cohort, "training", split="reduced.json", fraction=0.5)
        assert len(datalist(cohort, "training", split="reduced.json")) == 20

    def test_works_without_data_prep(self, cohort: Path) -> None:
        code = (
            "import sys; sys.modules['data_prep'] = None; from grn_monai.data.cohort import datalist; "
            f"print(len(datalist({str(cohort)!r}, 'training', fraction=0.2)))"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "4"
