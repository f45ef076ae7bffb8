"""A second run into the same cohort: what it keeps, does again, names anew, refuses, and never loses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.io import savemat

from data_prep.convert.cohort import convert_cohort
from data_prep.convert.link import Link, default_link
from data_prep.convert.names import pseudonym
from data_prep.convert.plan import Request
from grn_monai.data.cohort import read_cohort
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import region, save_ultrasound
from tests.data_prep.convert.conftest import layers, save_nifti, speckle

Run = Callable[..., tuple[int, str, Path]]
KEY = "0123456789abcdef0123456789abcdef"


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def names(out: Path) -> list[str]:
    return sorted(p.name.removesuffix(".nii.gz") for p in (out / "images").iterdir())


def content(out: Path, scan: str) -> np.ndarray:
    return np.asarray(nib.load(out / "images" / f"{scan}.nii.gz").dataobj)


def scans(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(default_link(out).read_text())["scans"]
    return found


def test_several_volumes_of_one_file_are_all_kept_by_a_second_run(tmp_path: Path, convert: Run) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (16, 12, 10, 2), dtype=np.uint8)  # depth, lateral, elevation
    (tmp_path / "src").mkdir()
    savemat(tmp_path / "src" / "two.mat", {"v": voxels})
    rows = table(tmp_path / "t.csv", "image,subject,scan,volume", "two.mat,p,first,1", "two.mat,p,second,2")
    options = ("--table", rows, "--spacing", 0.2, 0.25, 0.15, "--data", "grey")
    code, said, out = convert(*options)
    assert code == 0, said
    code, said, out = convert(*options)
    assert code == 0, said
    assert "0 scans converted, 2 kept" in said
    assert names(out) == ["p_first", "p_second"]
    assert not np.array_equal(content(out, "p_first"), content(out, "p_second"))


def test_a_corrected_subject_moves_the_scan_and_an_exchange_of_two_exchanges_them(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    for i, name in enumerate("ab"):
        save_nifti(src / f"{name}.nii.gz", speckle(seed=i))
    head = "image,subject,scan"
    convert("--table", table(tmp_path / "t.csv", head, "a.nii.gz,p1,x", "b.nii.gz,p2,x"))
    code, said, out = convert("--table", table(tmp_path / "t.csv", head, "a.nii.gz,p2,x", "b.nii.gz,p1,x"))
    assert code == 0, said
    assert names(out) == ["p1_x", "p2_x"]
    np.testing.assert_array_equal(content(out, "p2_x"), speckle(seed=0))
    np.testing.assert_array_equal(content(out, "p1_x"), speckle(seed=1))
    code, said, out = convert("--table", table(tmp_path / "t.csv", head, "a.nii.gz,p3,x", "b.nii.gz,p1,y"))
    assert code == 0, said
    assert names(out) == ["p1_y", "p3_x"]
    assert sorted((i["subject"], i["scan"]) for i in read_cohort(out)["unlabeled"]) == [("p1", "p1_y"), ("p3", "p3_x")]


def test_a_change_beside_the_named_file_is_seen(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    src.mkdir()
    voxels = speckle()
    voxels.transpose(2, 1, 0).tofile(src / "r.raw")
    about = {"shape": [16, 10, 12], "axes": "zyx", "dtype": "uint8", "spacing_mm": [0.2, 0.25, 0.15]}
    (src / "r.json").write_text(json.dumps(about))
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.SetSpacing((0.2, 0.25, 0.15))
    sitk.WriteImage(image, str(src / "m.mhd"))
    code, said, out = convert("--data", "grey")
    assert code == 0, said
    (src / "r.json").write_text(json.dumps({**about, "spacing_mm": [0.4, 0.25, 0.15]}))
    changed = speckle(seed=5)
    (src / "m.raw").write_bytes(changed.transpose(2, 1, 0).tobytes())
    os.utime(src / "m.raw", ns=(1, 1))
    code, said, out = convert("--data", "grey")
    assert code == 0, said
    assert "2 scans converted" in said
    assert nib.load(out / "images" / "r.nii.gz").header.get_zooms()[0] == pytest.approx(0.4)
    np.testing.assert_array_equal(content(out, "m"), changed)


def test_a_relative_source_is_the_same_source(tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 20, 24), dtype=np.uint8)
    (tmp_path / "src").mkdir()
    save_ultrasound(tmp_path / "src" / "us.dcm", pixels, [region((2, 3, 21, 17))])
    code, said, out = convert("--frame-spacing", 0.5)
    assert code == 0, said
    monkeypatch.chdir(tmp_path / "src")
    for typed in (Path(), Path("../src"), Path("us.dcm")):
        code, said, out = convert("--frame-spacing", 0.5, src=typed)
        assert "0 scans converted, 1 kept" in said
    assert names(out) == ["sub-001_scan-1"]
    [entry] = scans(out).values()
    assert entry["files"] == [str((tmp_path / "src" / "us.dcm").resolve())]


def test_scans_whose_files_are_gone_are_kept_and_told_and_moved_ones_found_again(tmp_path: Path, convert: Run) -> None:
    for name in "ab":
        save_nifti(tmp_path / "src" / f"{name}.nii.gz", speckle(seed=ord(name)))
    convert()
    (tmp_path / "src").rename(tmp_path / "moved")
    code, said, out = convert(src=tmp_path / "moved")
    assert code == 0, said
    assert "gone" not in said
    assert all("moved" in entry["files"][0] for entry in scans(out).values())
    (tmp_path / "moved" / "a.nii.gz").unlink()
    code, said, out = convert(src=tmp_path / "moved")
    assert code == 0, said
    assert "1 scan of earlier runs whose files are gone is kept" in said
    assert len(read_cohort(out)["unlabeled"]) == 2


def test_a_begun_cohort_without_its_link_file_is_refused(tmp_path: Path, convert: Run) -> None:
    save_nifti(tmp_path / "src" / "a.nii.gz", speckle())
    save_nifti(tmp_path / "other" / "a.nii.gz", speckle(seed=1))
    code, said, out = convert("--no-link")
    assert code == 0, said
    for options in (("--no-link",), (), ("--link", tmp_path / "new.json")):
        code, said, out = convert(*options, src=tmp_path / "other")
        assert code == 2
        assert "a cohort that was begun, but no link file of it" in said
    np.testing.assert_array_equal(content(out, "a"), speckle())


def test_an_option_that_fails_loses_no_finished_scan_and_a_changed_source_does(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    save_nifti(src / "a.nii.gz", speckle())
    save_nifti(src / "a_seg.nii.gz", layers())
    convert()
    values = tmp_path / "values.json"
    values.write_text('{"1": 1}')
    code, said, out = convert("--label-values", values)
    assert code == 1
    assert "a_seg.nii.gz: found unknown label values" in said
    assert "The scan that an earlier run made of it is kept." in said
    np.testing.assert_array_equal(content(out, "a"), speckle())
    assert [item["scan"] for item in read_cohort(out)["training"]] == ["a"]
    record = json.loads((out / "conversion.json").read_text())
    assert (list(record["scans"]), record["failed"]) == (["a"], 1)
    code, said, _ = convert("--label-values", values)  # tried again, kept again
    assert (code, "is kept" in said) == (1, True)
    code, said, _ = convert()
    assert (code, "1 kept" in said) == (0, True)
    (src / "a.nii.gz").write_bytes((src / "a.nii.gz").read_bytes()[:300])
    code, said, _ = convert()
    assert (code, "is kept" in said) == (1, False)
    assert names(out) == []
    assert read_cohort(out)["training"] == []


def test_a_table_row_whose_file_is_not_there_now_loses_no_finished_scan(tmp_path: Path, convert: Run) -> None:
    save_nifti(tmp_path / "src" / "a.nii.gz", speckle())
    rows = table(tmp_path / "t.csv", "image,subject,scan", "a.nii.gz,p,x")
    convert("--table", rows)
    (tmp_path / "src" / "a.nii.gz").rename(tmp_path / "elsewhere.nii.gz")
    code, _, out = convert("--table", rows)
    assert code == 1
    assert names(out) == ["p_x"]


def test_a_stopped_replacement_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src, out = tmp_path / "src", tmp_path / "out"
    save_nifti(src / "a.nii.gz", speckle())
    save_nifti(src / "a_seg.nii.gz", layers())
    request = Request(src, out, link=default_link(out))
    convert_cohort(request, progress=False)
    swapped = Request(src, out, link=default_link(out), label_values={str(v): 7 - v for v in range(1, 7)})

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.convert.cohort.run_isolated", stop)
        with pytest.raises(KeyboardInterrupt):
            convert_cohort(swapped, progress=False)
    # Which state its files are of is not known now, so it is converted again whatever the options.
    assert convert_cohort(request, progress=False).converted == 1
    assert "pending" not in scans(out)["a"]


def test_another_key_or_one_given_later_is_refused_before_anything_is_written(tmp_path: Path, convert: Run) -> None:
    save_nifti(tmp_path / "src" / "Doe.nii.gz", speckle())
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key2").write_text(KEY[::-1])
    code, said, out = convert()
    assert code == 0, said
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    code, said, _ = convert("--pseudonym-key", tmp_path / "key")
    assert code == 2
    assert "named without a pseudonym key, while now another one is given" in said
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    code, said, out = convert("--pseudonym-key", tmp_path / "key", out="out2")
    assert code == 0, said
    for options in ((), ("--pseudonym-key", tmp_path / "key2")):
        code, said, _ = convert(*options, out="out2")
        assert code == 2
        assert "convert all scans into another OUT" in said
    code, said, _ = convert("--pseudonym-key", tmp_path / "key", out="out2")
    assert (code, "1 kept" in said) == (0, True)
    [entry] = scans(out).values()
    assert len(entry["key"]) == 16
    assert KEY not in default_link(out).read_text()


def test_a_scan_that_failed_without_a_key_does_not_keep_its_name_under_one(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "Doe.nii.gz").write_bytes(b"damaged")
    assert convert()[0] == 1
    save_nifti(src / "Doe.nii.gz", speckle())
    (tmp_path / "key").write_text(KEY)
    code, said, out = convert("--pseudonym-key", tmp_path / "key")
    assert code == 0, said
    assert names(out) == [f"{pseudonym('Doe', KEY.encode())}_scan-1"]


def test_a_subject_in_two_sections_over_two_runs_is_refused(tmp_path: Path, convert: Run) -> None:
    for folder in ("src", "later"):
        save_nifti(tmp_path / folder / "sub-7" / f"{folder}.nii.gz", speckle())
        save_nifti(tmp_path / folder / "sub-7" / f"{folder}_seg.nii.gz", layers())
    assert convert("--section", "test")[0] == 0
    code, said, out = convert(src=tmp_path / "later")
    assert code == 2
    assert "scans of one subject in several sections, with those of earlier runs (sub-7)" in said
    assert len(names(out)) == 1
    assert convert("--section", "test", src=tmp_path / "later")[0] == 0
    assert len(read_cohort(out)["test"]) == 2
    assert convert()[0] == 2  # the first scan alone would now train


def test_only_converted_scans_tell_the_modality(tmp_path: Path, convert: Run) -> None:
    save_nifti(tmp_path / "src" / "a.nii.gz", speckle())
    (tmp_path / "src" / "b.nii.gz").write_bytes(b"damaged")
    rows = table(tmp_path / "t.csv", "image,modality", "a.nii.gz,CT", "b.nii.gz,US")
    code, said, out = convert("--table", rows)
    assert code == 1
    assert read_cohort(out)["modality"] == {"0": "CT"}
    assert "mixes" not in said


def test_what_only_the_owner_may_know_goes_into_the_link_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_prep.convert import cohort
    from data_prep.convert.isolated import Outcome
    from data_prep.convert.one import convert_scan

    def in_this_process(_: Any, jobs: list, *__: Any) -> Any:
        for job in jobs:
            yield Outcome(job, {**convert_scan(job), "private": {"variable": "Doe_Jane"}})

    monkeypatch.setattr(cohort, "run_isolated", in_this_process)
    save_nifti(tmp_path / "src" / "a.nii.gz", speckle())
    out = tmp_path / "out"
    convert_cohort(Request(tmp_path / "src", out, link=default_link(out)), progress=False)
    assert scans(out)["a"]["private"] == {"variable": "Doe_Jane"}
    assert not [p for p in out.rglob("*") if p.is_file() and b"Doe" in p.read_bytes()]


def test_the_link_tells_grid_files_and_labels(tmp_path: Path, convert: Run) -> None:
    save_nifti(tmp_path / "src" / "a.nii.gz", speckle())
    _, _, out = convert()
    entry = scans(out)["a"]
    image = nib.load(entry["image"])
    assert entry["shape"] == list(image.shape)
    np.testing.assert_allclose(entry["affine"], image.affine, atol=1e-6)
    assert "affine" not in json.loads((out / "conversion.json").read_text())["scans"]["a"]
    assert json.loads(default_link(out).read_text())["labels"]["1"] == "dermis"


def test_out_may_be_the_working_directory(tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save_nifti(tmp_path / "src" / "a.nii.gz", speckle())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert default_link(Path()) == tmp_path / "here.link.json"
    assert default_link(Path("..")) == tmp_path.with_name(f"{tmp_path.name}.link.json")
    assert default_link(Path("x/y")) == Path("x/y.link.json")
    with pytest.raises(InputError, match="root of a file system"):
        default_link(Path("/"))


@pytest.mark.parametrize("text", ["[]", "{", '{"format": "grn-monai link 1", "cohort": "/", "scans": {"a": {}}}'])
def test_a_faulty_link_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(InputError, match=r"l\.json: found no link file"):
        Link(tmp_path / "l.json", tmp_path / "out")
