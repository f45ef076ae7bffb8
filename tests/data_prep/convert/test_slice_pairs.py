"""Pictures of slices, their masks, and whose they are."""

from __future__ import annotations

from pathlib import Path

from tests.data_prep.convert.test_plan import plan, table, touch


def test_each_picture_gets_the_mask_of_its_own_folder(tmp_path: Path) -> None:
    names = [f"{p}/{kind}/s_{i}.png" for p in ("p01", "p02") for kind in ("images", "masks") for i in (1, 2)]
    src = touch(tmp_path / "src", *names)
    found = plan(src, layout="slice-pairs").sources
    paths = {s.subject: [p.relative_to(src).as_posix() for p in s.labels] for s in found}
    assert paths == {p: [f"{p}/masks/s_1.png", f"{p}/masks/s_2.png"] for p in ("p01", "p02")}
    assert [s.scan for s in found] == ["p01_s", "p02_s"]


def test_masks_beside_pictures_are_told_by_their_names(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "p1_1.png", "p1_1_mask.png", "p1_2.png", "p1_2.nii.gz", "p9_1_mask.png")
    found = plan(src, layout="slice-pairs")
    [source] = found.sources
    assert [p.name for p in source.labels] == ["p1_1_mask.png", "p1_2.nii.gz"]
    assert "1 label belongs to no scan" in found.notes[0]


def test_a_picture_with_two_masks_fails(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "images/p1_1.png", "images/p1_2.png", "masks/p1_1.png", "masks/p1_1.nii.gz")
    touch(src, "masks/p1_2.png")
    [source] = plan(src, layout="slice-pairs").sources
    assert source.problem == "2 masks of p1_1.png: p1_1.nii.gz, p1_1.png"


def test_the_subject_is_the_folder_and_never_images(tmp_path: Path) -> None:
    names = [f"{p}/images/{i:03d}.png" for p in ("p01", "p02") for i in (1, 2)]
    src = touch(tmp_path / "src", *names)
    found = plan(src, layout="slice-pairs").sources
    assert [(s.subject, s.scan, len(s.files)) for s in found] == [("p01", "p01", 2), ("p02", "p02", 2)]

    flat = touch(tmp_path / "flat", "images/001.png", "images/002.png")
    [source] = plan(flat, layout="slice-pairs").sources
    assert (source.subject, source.scan) == ("flat", "flat")
    [source] = plan(flat / "images", layout="slice-pairs").sources
    assert (source.subject, source.scan) == ("flat", "flat")


def test_a_scan_column_does_not_mix_subjects(tmp_path: Path) -> None:
    names = [f"{p}/slice_{i}.png" for p in ("p01", "p02") for i in (1, 2)]
    src = touch(tmp_path / "src", *names)
    text = "image,scan\n" + "".join(f"{name},left\n" for name in names)
    found = plan(src, table=table(tmp_path / "t.csv", text)).sources
    assert [(s.subject, s.scan, len(s.files), s.problem) for s in found] == [
        ("p01", "left", 2, None), ("p02", "left", 2, None),
    ]  # fmt: skip


def test_folders_name_planes_not_subjects(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", *[f"p1/{plane}/{i}.png" for plane in ("sagittal", "coronal") for i in (1, 2)])
    found = {(s.subject, s.scan, s.options.plane) for s in plan(src, layout="slice-pairs").sources}
    assert found == {("p1", "p1_sagittal", "sagittal"), ("p1", "p1_transverse", "transverse")}


def test_pictures_outside_the_source_keep_their_folder(tmp_path: Path) -> None:
    touch(tmp_path / "far" / "p7", "images/1.png", "images/2.png")
    src = touch(tmp_path / "src", "x.txt")
    text = "image\n" + "".join(f"{tmp_path}/far/p7/images/{i}.png\n" for i in (1, 2))
    [source] = plan(src, table=table(tmp_path / "t.csv", text)).sources
    assert (source.subject, source.scan, len(source.files)) == ("p7", "p7", 2)


def test_a_row_may_name_the_folder_of_a_stack(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", *[f"p1/images/s_{i}.png" for i in range(1, 12)], "p1/masks/s_3.png", "p2/b.txt")
    text = "image,subject\np1,A\n"
    [source] = plan(src, table=table(tmp_path / "t.csv", text)).sources
    assert [p.name for p in source.files] == [f"s_{i}.png" for i in range(1, 12)]
    assert (source.subject, source.scan, source.problem) == ("A", "p1", "10 of 11 slices have no mask")
