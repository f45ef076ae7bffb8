from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.convert.plan import Plan, Request, plan_conversion
from data_prep.convert.source import ReadOptions
from grn_monai.errors import InputError


def touch(base: Path, *names: str) -> Path:
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return base


def plan(src: Path, **options: object) -> Plan:
    return plan_conversion(Request(src, src.parent / "out", **options))  # type: ignore[arg-type]


def test_labels_are_found_beside_their_scans(tmp_path: Path) -> None:
    src = touch(
        tmp_path / "src",
        "images/sub-01_a.nii.gz", "labels/sub-01_a.nii.gz", "images/sub-02_a.mha", "images/sub-02_a_seg.mha",
        "doe/left/us.nrrd", "doe/left/us-label.nrrd", "doe/right/us.nrrd", "notes.txt", ".hidden.nii.gz", "v.mhd",
        "v.raw",
    )  # fmt: skip
    found = {s.files[0].relative_to(src).as_posix(): s for s in plan(src).sources}
    labelled = {name: [p.name for p in source.labels] for name, source in found.items()}
    assert labelled == {
        "images/sub-01_a.nii.gz": ["sub-01_a.nii.gz"],
        "images/sub-02_a.mha": ["sub-02_a_seg.mha"],
        "doe/left/us.nrrd": ["us-label.nrrd"],
        "doe/right/us.nrrd": [],
        "v.mhd": [],
    }
    assert {s.section for s in found.values() if s.labels} == {"training"}
    assert {s.section for s in found.values() if not s.labels} == {"unlabeled"}
    assert [found[n].subject for n in ("images/sub-01_a.nii.gz", "doe/left/us.nrrd", "v.mhd")] == [
        "sub-01", "doe/left", "v",
    ]  # fmt: skip
    assert plan(src).passed_over == {".txt": 1}  # v.raw belongs to v.mhd


def test_a_pattern_names_subject_and_keys(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "P7/L4_left_2.nii.gz", "P8/oddity.nii.gz")
    pattern = r"(?P<subject>P\d+)/(?P<site>L\d)_(?P<side>left|right)_(?P<repeat>\d)"
    good, odd = plan(src, pattern=pattern).sources
    assert (good.subject, good.keys) == ("P7", {"site": "L4", "side": "left", "repeat": "2"})
    assert odd.problem is not None
    for wrong in ("(", "(?P<name>.)", "plain"):
        with pytest.raises(InputError, match="--pattern"):
            plan(src, pattern=wrong)


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_says_everything_of_a_row(tmp_path: Path, delimiter: str) -> None:
    src = touch(tmp_path / "src", "a.mat", "la.mat", "b.nii")
    text = (
        "image,label,subject,side,section,spacing,data,region\n"
        "a.mat,la.mat,S 1,left,test,0.2 0.2 0.15,rf,1\n"
        "b.nii,,S2,,,,,\n"
    )
    a, b = plan(src, table=table(tmp_path / "t.csv", text.replace(",", delimiter))).sources
    assert (a.kind, a.subject, a.section, a.keys) == ("verasonics", "S 1", "test", {"side": "left"})
    assert a.options == ReadOptions(spacing=(0.2, 0.2, 0.15), data="rf", region=1)
    assert a.labels == (src / "la.mat",)
    assert (b.kind, b.section, b.labels, b.options) == ("volume", "unlabeled", (), ReadOptions())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("picture\na.nii\n", "unknown column picture"),
        ("subject\ns1\n", "no column `image`"),
        ("image\n", "no rows"),
        ("image,subject\na.nii,s1,extra\n", "more cells than columns in line 2"),
        ("image,spacing\na.nii,0.2 0.2\n", "spacing '0.2 0.2'"),
        ("image,region\na.nii,first\n", "region 'first'"),
        ("image,section\na.nii,train\n", "section 'train'"),
        ("image,subject\n,s1\n", "no image in line 2"),
        ("image,subject,section,label\na.nii,s,test,a.nii\nb.nii,s,training,b.nii\n", "several sections .s."),
    ],
)
def test_a_faulty_table_is_refused_as_a_whole(tmp_path: Path, text: str, found: str) -> None:
    src = touch(tmp_path / "src", "a.nii", "b.nii")
    with pytest.raises(InputError, match=found):
        plan(src, table=table(tmp_path / "t.csv", text))


def test_a_row_with_a_missing_file_is_one_failed_scan(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii")
    text = "image,label,section\na.nii,,\nabsent.nii,,\na.nii,gone.nii,\na.nii,,validation\n"
    good, absent, unlabelled, wrong = plan(src, table=table(tmp_path / "t.csv", text)).sources
    assert good.problem is None
    assert "no such file" in str(absent.problem)
    assert "gone.nii" in str(unlabelled.problem)
    assert "no label" in str(wrong.problem)


def test_slices_of_a_table_become_one_source_for_each_scan(tmp_path: Path) -> None:
    rows = [f"images/p1_L4_{i}.jpg,masks/p1_L4_{i}.nii" for i in (2, 10, 9, 1, 3, 4, 5, 6, 7, 8)]
    rows += [f"images/p2_L4_{i}.jpg,masks/p2_L4_{i}.nii" for i in (1, 2, 4)]
    src = touch(tmp_path / "src", *[name for row in rows for name in row.split(",")])
    text = "image_path,mask_path\n" + "\n".join(rows) + "\n"
    whole, holed = plan(src, table=table(tmp_path / "t.csv", text)).sources
    assert [p.name for p in whole.files] == [f"p1_L4_{i}.jpg" for i in range(1, 11)]
    assert [p.name for p in whole.labels] == [f"p1_L4_{i}.nii" for i in range(1, 11)]
    assert (whole.kind, whole.scan, whole.problem) == ("slices", "p1_L4", None)
    assert holed.problem == "1 of 4 slices are missing, the first is 3"


def test_planes_in_the_names_of_slices_make_scans_of_their_own(tmp_path: Path) -> None:
    names = [f"p1_{plane}_{i:03d}.png" for plane in ("sagittal", "coronal") for i in (1, 2)]
    src = touch(tmp_path / "src", *names)
    sources = plan(src, layout="slice-pairs").sources
    assert {(s.scan, s.options.plane) for s in sources} == {
        ("p1_sagittal", "sagittal"),
        ("p1_transverse", "transverse"),
    }


def test_public_sets_are_recognised(tmp_path: Path) -> None:
    leg = touch(tmp_path / "leg", "train/07/x1.mha", "train/07/masksX1.mha", "val/08/x2.mha", "val/08/masksX2.mha")
    luminous = touch(
        tmp_path / "lum", "B-mode/3_Bmode.tif", "B-mode/12_Bmode.tif", "Masks/3_Mask.tif", "Masks/12_Mask.tif"
    )
    total = touch(
        tmp_path / "total", "s0001/ct.nii.gz", "s0001/segmentations/autochthon_left.nii.gz", "s0002/ct.nii.gz",
        "s0001/segmentations/liver.nii.gz",
    )  # fmt: skip
    (total / "meta.csv").write_text("image_id;age;split\ns0001;60;val\ns0002;50;test\n")
    spider = touch(tmp_path / "spider", "images/1_t1.mha", "images/1_t2.mha", "masks/1_t1.mha")

    found = plan(leg)
    assert found.layout == "leg-3d-us"
    assert [(s.subject, s.section, [p.name for p in s.labels]) for s in found.sources] == [
        ("07", "training", ["masksX1.mha"]), ("08", "validation", ["masksX2.mha"]),
    ]  # fmt: skip
    assert found.sources[0].label_values == {"100": 1, "150": 2, "200": 3}
    assert found.label_names == {
        0: "background",
        1: "soleus",
        2: "gastrocnemius medialis",
        3: "gastrocnemius lateralis",
    }

    found = plan(luminous)
    assert found.layout == "luminous"
    assert {s.files[0].name: s.labels[0].name for s in found.sources} == {
        "3_Bmode.tif": "3_Mask.tif", "12_Bmode.tif": "12_Mask.tif",
    }  # fmt: skip
    assert "layout luminous" in found.notes[0]
    assert "each counts as a subject" in found.notes[1]

    found = plan(total)
    assert found.layout == "totalsegmentator"
    assert [(s.subject, s.section, s.modality, len(s.labels)) for s in found.sources] == [
        ("s0001", "validation", "CT", 1), ("s0002", "unlabeled", "CT", 0),
    ]  # fmt: skip

    found = plan(spider)
    assert (found.layout, [s.subject for s in found.sources]) == ("spider", ["1", "1"])
    assert {s.modality for s in found.sources} == {"MR"}
    assert not any(s.labels for s in found.sources)


def test_nothing_to_convert_is_said_with_what_lies_there(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.txt", "b.png")
    with pytest.raises(InputError, match=r"passed over: 1 \.png, 1 \.txt.*slice-pairs"):
        plan(src)
    with pytest.raises(InputError, match="no such file or folder"):
        plan(tmp_path / "absent")


def test_sets_are_recognised_by_all_that_marks_them(tmp_path: Path) -> None:
    for names in (
        ("images/ab_t1.mha", "masks/ab_t1.mha"),  # SPIDER's scans have numbers
        ("images/1_t1.mha",),  # and masks
        ("masks/a.png", "bmp/a.png", "v.nii"),  # LUMINOUS has B-mode/, not bmp/
        ("Masks", "B-mode", "v.nii"),  # as folders
        ("Masks/1.png", "B-mode/1.png", "BMode/1.png", "v.nii"),
    ):
        src = touch(tmp_path / str(len(list(tmp_path.iterdir()))), *names)
        found = plan(src)
        assert found.layout == "files", names
        assert not any("layout" in note for note in found.notes)
    with pytest.raises(InputError, match="one folder B-mode and one folder Masks"):
        plan(src, layout="luminous")


def test_a_table_adds_to_a_recognised_set(tmp_path: Path) -> None:
    src = touch(tmp_path / "lum", *[f"{d}/{n}.tif" for d in ("B-mode", "Masks") for n in (3, 12)], "more/1_1.png")
    rows = table(tmp_path / "t.csv", "image,subject\nB-mode/3.tif,S7\n")
    found = plan(src, table=rows)
    assert (found.layout, found.label_names[1]) == ("luminous", "multifidus")
    assert {s.files[0].name: (s.subject, len(s.labels)) for s in found.sources} == {
        "3.tif": ("S7", 1), "12.tif": ("image-12", 1),
    }  # fmt: skip
    with pytest.raises(InputError, match="image that the layout does not have in line 3"):
        plan(src, table=table(tmp_path / "t.csv", "image,subject\nB-mode/3.tif,S7\nB-mode/4.tif,S8\n"))
    other = plan(src, table=table(tmp_path / "t.csv", "image,subject\nmore/1_1.png,S7\n"))
    assert (other.layout, len(other.sources)) == ("slice-pairs", 1)


def test_a_pattern_applies_to_a_file_and_to_paths_elsewhere(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "P7_left.nii", "P8_left.nii")
    pattern = r"(?P<subject>P\d)_(?P<side>left|right)"
    [one] = plan(src / "P7_left.nii", pattern=pattern).sources
    assert (one.subject, one.keys) == ("P7", {"side": "left"})
    touch(tmp_path / "far", "P9_left.nii")
    text = f"image\n{tmp_path}/far/P9_left.nii\n{src}/P8_left.nii\n"
    far, near = plan(src, table=table(tmp_path / "t.csv", text), pattern=pattern).sources
    assert "outside SRC" in str(far.problem)
    assert (near.subject, near.problem) == ("P8", None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("image,image\na.nii,a.nii\n", "the column image twice"),
        ("image,image_path\na.nii,a.nii\n", "the column image twice"),
        ("image,modality\na.nii,ultrasound\n", "line 2: found modality 'ultrasound'"),
        ("image,plane\n\na.nii,axial\n", "line 3: found plane 'axial'"),
        ("image,data\na.nii,envelope\n", "data 'envelope'"),
        ("image,colour\na.nii,red\n", "colour 'red'"),
        ("image,mask_order\na.nii,xy\n", "mask_order 'xy'"),
        ("image,whole_frame\na.nii,maybe\n", "whole_frame 'maybe'"),
        ("image,dynamic_range_db\na.nii,0\n", "dynamic_range_db 0; expected more than 0"),
        ("image,volume\na.nii,0\n", "volume 0; expected a number from 1"),
        ("image,spacing\na.nii,0.2 -1 0.2\n", "spacing -1"),
    ],
)
def test_a_faulty_cell_is_named_with_its_line(tmp_path: Path, text: str, found: str) -> None:
    src = touch(tmp_path / "src", "a.nii")
    with pytest.raises(InputError, match=found):
        plan(src, table=table(tmp_path / "t.csv", text))


def test_cells_of_choices_are_read_in_any_case(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii")
    text = '"image","modality",whole_frame,mask_order,colour\na.nii,us,Yes,rows-first,luminance\n'
    [source] = plan(src, table=table(tmp_path / "t.csv", text), modality="MR").sources
    assert source.modality == "US"
    assert source.options == ReadOptions(whole_frame=True, mask_order="rows-first", colour="luminance")


def test_the_modality_option_is_for_files_that_tell_none(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii", "b.uff", "c.mat")
    assert [s.modality for s in plan(src, modality="MR").sources] == ["MR", "US", "MR"]
    total = touch(tmp_path / "total", "s0001/ct.nii.gz")
    assert [s.modality for s in plan(total, modality="MR").sources] == ["CT"]


def test_only_named_label_values_are_allowed(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii", "a_seg.nii")
    [six] = plan(src).sources
    assert six.label_values == {str(value): value for value in range(7)}
    [two] = plan(src, label_names={0: "background", 7: "bone"}).sources
    assert two.label_values == {"0": 0, "7": 7}
    with pytest.raises(InputError, match="--label-values: found values without a name, 9"):
        plan(src, label_values={"100": 1, "200": 9})
    leg = touch(tmp_path / "leg", "train/07/x1.mha", "train/07/masksX1.mha")
    with pytest.raises(InputError, match="--label-names: found values without a name, 2, 3"):
        plan(leg, label_names={0: "background", 1: "soleus"})


def test_options_that_suit_no_file_are_refused(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii")
    for options in (
        ReadOptions(dynamic_range_db=0.0), ReadOptions(dynamic_range_db=float("nan")), ReadOptions(volume=0),
        ReadOptions(region=0), ReadOptions(frames=(0, 4)), ReadOptions(spacing=(1.0, 1.0, 0.0)),
    ):  # fmt: skip
        with pytest.raises(InputError, match="the options: found"):
            plan(src, options=options)
