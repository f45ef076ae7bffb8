"""Cohort files: reading, the faults they are refused for, and the labelled share."""

from __future__ import annotations

import gzip
import json
import logging
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.data.cohort import (
    cohort_faults,
    datalist,
    load_cohort,
    read_cohort,
    section_items,
    select_labelled,
)
from grn_monai.data.names import item_names
from grn_monai.data.selection import image_counts, slice_counts
from grn_monai.errors import InputError

LABELS = {"0": "background", "1": "dermis"}
VOLUME = gzip.compress(nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)).to_bytes())


def item(subject: int, scan: int = 1, label: bool = True) -> dict[str, str]:
    name = f"s{subject}_{scan}"
    out = {"image": f"images/{name}.nii.gz", "subject": f"s{subject}", "scan": name}
    return {**out, "label": f"labels/{name}.nii.gz"} if label else out


def write(folder: Path, content: object, name: str = "dataset.json") -> Path:
    """Write a cohort file and a small volume for every path that it names."""
    if isinstance(content, dict):
        for section in ("training", "validation", "test", "unlabeled"):
            for entry in content.get(section, []):
                for key in ("image", "label"):
                    if isinstance(entry, dict) and isinstance(entry.get(key), str):
                        path = folder / entry[key]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(VOLUME)
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
            {"image": str(tmp_path.resolve() / "imagesTs/a.b.nii.gz"), "scan": "a.b"}
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
            ({"training": [item(1, label=False)]}, "training[0] (s1_1.nii.gz) has no `label`"),
            ({"validation": [item(1, label=False)]}, "validation[0] (s1_1.nii.gz) has no `label`"),
            ({"validation": [{**item(1), "label": None}]}, "validation[0] (s1_1.nii.gz) has no `label`"),
            ({"unlabeled": [item(1)]}, "unlabeled[0] (s1_1.nii.gz) has a `label`"),
            ({"test": [{"image": "x.nii"}]}, "test[0] (x.nii) has no `subject`"),
            (
                {"test": [item(30), {**item(30, 2), "scan": "s30_1"}]},
                "scan s30_1 of subject s30 is listed twice: test[0] (s30_1.nii.gz) and test[1] (s30_2.nii.gz)",
            ),
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

    @pytest.mark.parametrize(
        ("items", "scans"),
        [
            ([{"image": "P01.left.nii.gz"}, {"image": "P01.right.nii.gz"}], ["P01.left", "P01.right"]),
            ([{"image": "s1/us.nii.gz"}, {"image": "s2/us.nii.gz"}], ["s1/us", "s2/us"]),
            ([{"image": "a/1/us.nii"}, {"image": "b/1/us.nii"}, {"image": "c.nii"}], ["a/1/us", "b/1/us", "c"]),
            ([{"image": "x/a.nii.gz"}, {"image": "x/a.mha"}], ["a.nii.gz", "a.mha"]),
            (
                [{"image": f"{s}/us.nii", "subject": s, "scan": "left"} for s in ("s1", "s2")],
                ["left", "left"],
            ),
            ([{"image": "a.nii", "scan": None, "subject": None, "side": None}], ["a"]),
        ],
    )
    def test_sound_names(self, tmp_path: Path, items: list, scans: list[str]) -> None:
        items = [{**i, "label": f"labels/{i['image']}"} for i in items]
        write(tmp_path, {"labels": LABELS, "training": items})
        read = read_cohort(tmp_path)["training"]
        assert [i["scan"] for i in read] == scans
        assert len(select_labelled(read, 1, by="image")[0]) == len(items)
        assert len(select_labelled(read, 0.01, by="image")[0]) == 1, "each scan is one of its own"

    def test_a_scan_listed_twice_is_refused_without_subjects_too(self, tmp_path: Path) -> None:
        twice = [{"image": f"{n}.nii", "label": f"l{n}.nii", "scan": "left"} for n in (1, 2)]
        write(tmp_path, {"labels": LABELS, "training": twice})
        with pytest.raises(InputError, match="scan left is listed twice"):
            read_cohort(tmp_path)
        write(tmp_path, {"labels": LABELS, "training": [{"image": "a.nii", "label": "l.nii"}], "test": ["a.nii"]})
        with pytest.raises(InputError, match="is listed twice: training"):
            read_cohort(tmp_path)

    def test_test_items_may_lack_a_label(self, cohort: Path) -> None:
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "test": [item(21, label=False)]})
        assert cohort_faults(load_cohort(cohort)[0]) == []

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

    @pytest.mark.parametrize("fraction", [0.2, 1.0])
    def test_all_images_as_unlabelled_ones(self, cohort: Path, fraction: float) -> None:
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "unlabeled": [item(50, label=False)]}, "more.json")
        everything = datalist(cohort, "unlabeled", split="more.json", fraction=fraction, unlabelled="all")
        training = datalist(cohort, "training")
        assert [i["scan"] for i in everything] == ["s50_1", *(i["scan"] for i in training)]
        assert not any("label" in i for i in everything)
        assert all("label" in i for i in training)
        labelled = datalist(cohort, "training", split="more.json", fraction=fraction, unlabelled="all")
        assert len(labelled) == 20 * fraction

    def test_all_images_of_a_reduced_file(self, cohort: Path) -> None:
        content = json.loads((cohort / "dataset.json").read_text())
        training, rest = content["training"][:4], [{**i, "label": None} for i in content["training"][4:]]
        write(cohort, {**content, "training": training, "unlabeled": rest, "split": {"fraction": 0.2}}, "reduced.json")
        everything = datalist(cohort, "unlabeled", split="reduced.json", unlabelled="all")
        assert {i["scan"] for i in everything} == {i["scan"] for i in datalist(cohort, "training")}

    def test_another_meaning_of_unlabelled_is_refused(self, cohort: Path) -> None:
        with pytest.raises(InputError, match="unlabelled: found 'none'; expected 'rest' or 'all'"):
            datalist(cohort, "unlabeled", unlabelled="none")

    def test_other_sections_ignore_the_fraction(self, cohort: Path) -> None:
        assert len(datalist(str(cohort), "test", fraction=0.05)) == 2

    def test_refusals(self, cohort: Path) -> None:
        with pytest.raises(InputError, match="one of training, validation, test, unlabeled"):
            datalist(cohort, "train")
        with pytest.raises(InputError, match="fraction"):
            datalist(cohort, "training", fraction=5)
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "split": {"fraction": 0.1}}, "reduced.json")
        with pytest.raises(InputError, match="already reduced"):
            datalist(cohort, "training", split="reduced.json", fraction=0.5)
        assert len(datalist(cohort, "training", split="reduced.json")) == 20

    @pytest.mark.parametrize(
        ("subjects", "options", "found", "mend"),
        [
            (10, {}, "fraction 1 of 10 training subjects", "Lower fraction (up to 0.5"),
            (2, {"fraction": 0.99}, "fraction 0.99 of 2 training subjects", "leaves a subject unlabelled"),
            (2, {"fraction": 0.99, "by": "image"}, "fraction 0.99 of 4 training scans", "leaves a scan unlabelled"),
            (1, {"fraction": 0.1}, "fraction 0.1 of 1 training", "List scans of another subject"),
            (0, {}, "fraction 1 of 0 training", "List scans of another subject"),
        ],
    )
    def test_a_fraction_that_leaves_nothing_unlabelled(
        self, tmp_path: Path, subjects: int, options: dict, found: str, mend: str
    ) -> None:
        training = [item(s, k) for s in range(1, subjects + 1) for k in (1, 2)]
        write(tmp_path, {"labels": LABELS, "training": training})
        with pytest.raises(InputError) as error:
            datalist(tmp_path, "unlabeled", **options)
        assert found in error.value.found
        assert mend in error.value.mend
        if subjects > 1:  # what the message advises works
            assert datalist(tmp_path, "unlabeled", **{**options, "fraction": 0.5})

    def test_a_reduced_split_file_that_labels_everyone(self, cohort: Path) -> None:
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "split": {"fraction": 0.99}}, "reduced.json")
        with pytest.raises(InputError, match=r"reduced\.json: .*reduced to fraction 0\.99.*split: dataset\.json"):
            datalist(cohort, "unlabeled", split="reduced.json")

    def test_works_without_data_prep(self, cohort: Path) -> None:
        code = (
            "import sys; sys.modules['data_prep'] = None; from grn_monai.data.cohort import datalist; "
            f"print(len(datalist({str(cohort)!r}, 'training', fraction=0.2)))"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "4"

    def test_files_of_other_sections_may_be_missing_but_leaks_are_not_let_pass(self, cohort: Path) -> None:
        (cohort / "images/s21_1.nii.gz").unlink()
        (cohort / "images/s4_2.nii.gz").unlink()
        assert len(datalist(cohort, "validation")) == 1
        for section in ("training", "unlabeled"):
            with pytest.raises(InputError, match=r"training\[7\] \(s4_2\.nii\.gz\): image .* does not exist"):
                datalist(cohort, section, fraction=0.5)
        content = json.loads((cohort / "dataset.json").read_text())
        write(cohort, {**content, "test": [item(20, 2)]})
        with pytest.raises(InputError, match="subject s20 is in validation and test"):
            datalist(cohort, "validation")

    def test_the_choice_is_logged_in_one_line(self, cohort: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="grn_monai.data.cohort"):
            datalist(cohort, "training")
            assert caplog.messages == []
            chosen = sorted({i["subject"] for i in datalist(cohort, "training", fraction=0.25)})
            datalist(cohort, "unlabeled", fraction=0.25)
        assert caplog.messages == [
            f"labels: 20 % of the training images (asked: 25 %), 4 of 20 scans, 2 of 10 subjects: {', '.join(chosen)}"
        ]


class TestSectionItems:
    def test_only_the_section_asked_for_is_judged_and_no_file(self, cohort: Path) -> None:
        (cohort / "images/s1_1.nii.gz").unlink()
        (cohort / "images/s21_1.nii.gz").unlink()
        content = json.loads((cohort / "dataset.json").read_text())
        del content["training"][0]["label"]
        content["training"].append(content["training"][1])
        (cohort / "dataset.json").write_text(json.dumps(content))
        assert [i["scan"] for i in section_items(cohort, "test")] == ["s21_1", "s22_1"]

    @pytest.mark.parametrize(
        ("test", "fault"),
        [
            ([{"subject": "a"}], r"test\[0\] has no `image`"),
            ([{"image": "a.nii"}], r"test\[0\] \(a\.nii\) has no `subject`"),
            ([item(30), item(30)], "scan s30_1 of subject s30 is listed twice"),
            ([], "no items in 'test'"),
        ],
    )
    def test_refusals(self, cohort: Path, test: list, fault: str) -> None:
        write(cohort, {**json.loads((cohort / "dataset.json").read_text()), "test": test})
        with pytest.raises(InputError, match=fault):
            section_items(cohort, "test")
        with pytest.raises(InputError, match="one of training"):
            section_items(cohort, "tests")


def test_slice_counts_follow_the_depth_axis(tmp_path: Path) -> None:
    affine = np.diag([-0.2, 0.5, 0.3, 1.0])
    items = []
    for n, shape in enumerate([(5, 7, 11), (3, 2, 4)]):
        items.append({"image": str(tmp_path / f"{n}.nii.gz")})
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), items[-1]["image"])
    assert slice_counts(items) == [12, 5]
    assert slice_counts(items, 0) == slice_counts(items, "L") == [18, 6]
    with pytest.raises(InputError, match=r"none\.nii: found no such file"):
        slice_counts([{"image": str(tmp_path / "none.nii")}])


def test_scans_of_ct_and_mr_count_axial_slices(tmp_path: Path) -> None:
    items = [{"image": str(tmp_path / f"{n}.nii.gz")} for n in range(2)]
    nib.save(nib.Nifti1Image(np.zeros((5, 7, 11), np.uint8), np.eye(4)), items[0]["image"])
    turned = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # the second axis runs along S
    nib.save(nib.Nifti1Image(np.zeros((5, 7, 11), np.uint8), turned), items[1]["image"])
    for modality in ("CT", "MR", "mri"):
        assert image_counts({"modality": {"0": modality}}, items) == [11, 7]
    for cohort in ({"modality": {"0": "US"}}, {"modality": {}}, {}):
        assert image_counts(cohort, items) == slice_counts(items) == [12, 12]


def test_names_are_the_same_everywhere() -> None:
    assert item_names({"image": "a/P01.left.nii.gz"}) == ("P01.left", "P01.left")
    assert item_names({"image": "a/b.mha", "scan": "left"}) == ("left", "left")
    assert item_names({"image": "a/b.mha", "subject": 3}) == ("3", "b")
    assert item_names({"image": "a/b.mha", "subject": None, "scan": None}) == ("b", "b")
