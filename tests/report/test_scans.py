"""The page of measured scans: what is in its data, in which order, and what happens where something is missing."""

from __future__ import annotations

import base64
import gc
import io
import json
import re
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from grn_monai.errors import InputError
from grn_monai.measure import thickness_map
from grn_monai.measure.folders import measure_folders
from grn_monai.report import atlas, build_scan_report, find_measurements
from grn_monai.report import scans as report_scans
from grn_monai.report.atlas import even_slices, scan_pictures
from grn_monai.report.palette import LAYER_COLOURS, label_colours, lut_of
from tests.report.measured import HOSTILE, SHAPE, SPACING, save, scan, volumes, write_measured
from tests.report.test_build import Page

NAMES = {label: f"layer {label}" for label in range(1, 7)}
LUT = lut_of(LAYER_COLOURS)


def _labels(view: dict[str, Any]) -> np.ndarray:
    values = np.frombuffer(zlib.decompress(base64.b64decode(view["labels"])), np.uint8)
    return values.reshape(len(view["indices"]), view["height"], view["width"])


def _grey(view: dict[str, Any]) -> np.ndarray:
    """The slices (N, H, W) as a browser would cut them out of the atlas."""
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(view["image"].split(",")[1]))).convert("L"))
    width, height = view["tile"]
    tiles = []
    for i in range(len(view["indices"])):
        top, left = i // view["columns"] * height, i % view["columns"] * width
        tiles.append(picture[top : top + view["height"], left : left + view["width"]])
    return np.stack(tiles).astype(float)


def _maps(thickness: dict[str, Any]) -> np.ndarray:
    values = np.frombuffer(zlib.decompress(base64.b64decode(thickness["values"])), f"<u{thickness['bytes']}")
    return values.reshape(len(thickness["labels"]), thickness["height"], thickness["width"])


def test_page_is_whole_and_self_contained(tmp_path: Path) -> None:
    path = build_scan_report(write_measured(tmp_path))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == tmp_path / "report.html"
    assert page.open == []
    assert page.outside == []
    assert "@import" not in text
    assert "url(" not in text
    assert len(set(page.ids)) == len(page.ids)
    assert len(page.images) == 4 * 2
    assert all(source.startswith("data:image/") for source in page.images)
    for words in (
        "back study",
        "Simulated scans",
        "research use",
        "2 of 4 scans",
        "Scan by scan",
        HOSTILE,
        "31.2\u202f%",
    ):
        assert words in page.text
    for gone in ("Left and right", "Repeatability", "Failures"):
        assert gone not in page.text
    assert set(re.findall(r'<a href="(#[^"]+)"', text)) >= {f"#{kind}-{i}" for kind in ("scan", "row") for i in (1, 4)}


def test_slices_labels_and_thickness_are_those_of_the_volumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    _, labels = volumes()
    image = (labels * 30 + rng.integers(0, 20, SHAPE)).astype(np.uint8)
    found = scan_pictures(save(tmp_path / "i.nii.gz", image), save(tmp_path / "l.nii.gz", labels), NAMES, LUT, 7)
    assert found.notes == []
    low, high = np.percentile(image[::2, ::2, ::2], [0.5, 99.5])
    shown = np.clip((image - low) / (high - low), 0, 1) * 255
    for view, axis in zip(found.content["planes"], (0, 1), strict=True):
        assert view["indices"] == even_slices(SHAPE[axis], 7)
        assert view["positions"] == pytest.approx([(i + 0.5) * SPACING[axis] for i in view["indices"]])
        assert (view["width_mm"], view["height_mm"]) == pytest.approx((SHAPE[1 - axis] * SPACING[1 - axis], 12.0))
        slices = np.moveaxis(labels, axis, 0)[view["indices"]].swapaxes(1, 2)
        np.testing.assert_array_equal(_labels(view), slices)
        error = _grey(view) - np.moveaxis(shown, axis, 0)[view["indices"]].swapaxes(1, 2)
        assert np.sqrt((error**2).mean()) < 8
        assert abs(error.mean()) < 1
    thickness = found.content["thickness"]
    assert thickness["labels"] == [1, 2, 3, 4, 5, 6]
    for value, counts in zip(thickness["labels"], _maps(thickness), strict=True):
        expected = thickness_map(labels, value, SPACING[2])
        np.testing.assert_allclose(counts.T * thickness["step_mm"], expected, rtol=1e-6)


def test_fine_grids_are_thinned_and_keep_their_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas, "MAX_PIXELS", 12)
    image, labels = volumes()
    found = scan_pictures(save(tmp_path / "i.nii.gz", image), save(tmp_path / "l.nii.gz", labels), NAMES, LUT, 3)
    sagittal = found.content["planes"][0]
    assert (sagittal["width"], sagittal["height"]) == (10, 12)  # of 20 and 48 voxels, every second and fourth
    assert (sagittal["width_mm"], sagittal["height_mm"]) == (8.0, 12.0)
    expected = labels[sagittal["indices"]][:, 1::2, 2::4].swapaxes(1, 2)
    np.testing.assert_array_equal(_labels(sagittal), expected)
    thickness = found.content["thickness"]
    np.testing.assert_array_equal(_maps(thickness)[5].T, np.count_nonzero(labels == 6, 2)[1::2, 1::2])
    assert (thickness["width_mm"], thickness["height_mm"]) == (12.0, 8.0)


def test_counts_above_255_need_two_bytes(tmp_path: Path) -> None:
    image, labels = np.zeros((4, 4, 300), np.uint8), np.ones((4, 4, 300), np.uint8)
    image[..., ::2] = 9
    labels[0, 0] = 0
    found = scan_pictures(save(tmp_path / "i.nii.gz", image), save(tmp_path / "l.nii.gz", labels), NAMES, LUT, 2)
    counts = _maps(found.content["thickness"])
    assert counts.shape == (1, 4, 4)
    assert (counts.max(), counts[0, 0, 0]) == (300, 0)


def test_depth_may_lie_on_any_axis(tmp_path: Path) -> None:
    image, labels = volumes()
    turned = [np.ascontiguousarray(v.transpose(2, 0, 1)[::-1]) for v in (image, labels)]
    spacing = (SPACING[2], *SPACING[:2])
    plain = scan_pictures(save(tmp_path / "i.nii.gz", image), save(tmp_path / "l.nii.gz", labels), NAMES, LUT, 4)
    other = scan_pictures(
        save(tmp_path / "a.nii.gz", turned[0], spacing),
        save(tmp_path / "b.nii.gz", turned[1], spacing),
        NAMES,
        LUT,
        4,
        depth=(0, True),
    )
    assert other.content == plain.content


def test_labels_that_are_no_layers_are_shown_as_radiology_does(tmp_path: Path) -> None:
    # Voxel axes: superior, right, anterior; so the first voxel is the most inferior, left, posterior one.
    shape, affine = (6, 8, 10), np.zeros((4, 4))
    affine[[2, 0, 1, 3], [0, 1, 2, 3]] = (4.0, 1.0, 2.0, 1.0)
    labels = np.zeros(shape, np.uint8)
    labels[:, 6:, :3] = 201  # right, posterior
    labels[5, :3, 8:] = 17  # superior, left, anterior
    image = (labels + np.arange(10, dtype=np.uint8)).astype(np.float32)
    paths = []
    for name, array in (("i", image), ("l", labels)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
        paths.append(tmp_path / f"{name}.nii.gz")
    found = scan_pictures(*paths, {17: "psoas", 201: "multifidus"}, LUT, 99, depth=None)
    sagittal, axial = found.content["planes"]
    assert [sagittal["title"], axial["title"], found.content["thickness"]] == ["Sagittal", "Axial", None]
    assert (axial["width_mm"], axial["height_mm"], axial["of"]) == (8.0, 20.0, 6)
    top = _labels(axial)[0]  # slices run downwards from the head
    assert set(np.unique(top[-3:, :2])) == {201}  # posterior below, the patient's right on the left
    assert set(np.unique(top[:2, -3:])) == {17}
    assert (_labels(axial)[1:] != 17).all()
    side = _labels(sagittal)[-1]  # slices run from right to left
    assert (sagittal["width_mm"], sagittal["height_mm"]) == (20.0, 24.0)
    assert set(np.unique(side[0, :2])) == {17}  # head up, anterior to the left
    assert np.count_nonzero(side == 17) == 2


@pytest.mark.parametrize(("size", "count", "expected"), [(10, 3, [1, 5, 8]), (4, 9, [0, 1, 2, 3]), (128, 1, [64])])
def test_slices_are_evenly_spaced(size: int, count: int, expected: list[int]) -> None:
    assert even_slices(size, count) == expected


def test_what_is_missing_is_a_note_in_its_place(tmp_path: Path) -> None:
    image, _ = volumes()
    other = save(tmp_path / "data/other.nii.gz", np.ones((4, 4, 4), np.uint8))
    damaged = tmp_path / "data/damaged.nii.gz"
    whole = Path(save(tmp_path / "data/whole.nii.gz", image)).read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    scans = [
        scan("fine", "a", 2.0, 0),
        scan("moved", "a", 2.0, 0, segmentation=str(tmp_path / "gone.nii.gz")),
        scan("smaller", "a", 2.0, 0, segmentation=other),
        scan("cut off", "a", 2.0, 0, image=str(damaged)),
        scan("unnamed", "a", 2.0, 0, image=None),
    ]
    page = Page(build_scan_report(write_measured(tmp_path, scans, failures={"lost": "an empty file"})).read_text())
    assert page.open == []
    assert len(page.images) == 2
    for words in (
        "gone.nii.gz: found no such file",
        "shape (4, 4, 4)",
        "cannot be decoded",
        "name no image",
        "an empty",
    ):
        assert words in page.text
    assert "1 failed" in page.text
    assert "lost: an empty file" in page.text


def test_numbers_that_are_missing_do_not_stop_the_page(tmp_path: Path) -> None:
    bare = {"scan": "bare", "quality": None, "layers": None}
    half = {"scan": 7, "layers": [{"label": 2, "name": "fat", "thickness_mm": None, "volume_ml": None}], "side": "left"}
    page = Page(build_scan_report(write_measured(tmp_path, [bare, half]), slices=0).read_text())
    assert page.open == []
    assert "Nothing was checked" in page.text
    assert "0 need a look" in page.text
    empty = Page(build_scan_report(write_measured(tmp_path, []), slices=0).read_text())
    assert "0 scans" in empty.text


def test_text_of_the_files_stays_text(tmp_path: Path) -> None:
    bad = '</script><script>window.broken=1</script><!--<b a="1">'
    scans = [scan(bad, bad, 2.0, 1, site=bad, image=bad)]
    folder = write_measured(tmp_path, scans, labels={"2": bad}, failures={bad: bad}, source={"cohort": bad})
    page = Page(build_scan_report(folder).read_text())
    assert page.open == []
    assert page.text.count("window.broken=1") >= 8
    scripts = re.findall(r"<script[^>]*>", (tmp_path / "report.html").read_text())
    assert len(scripts) == 2  # the page's data and its own script


def test_only_one_scan_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most = []

    def watched(*args: Any) -> Any:
        gc.collect()
        most.append(sum(reference() is not None for reference in alive))
        pictures = scan_pictures(*args)
        alive.append(weakref.ref(pictures))
        return pictures

    monkeypatch.setattr(report_scans, "scan_pictures", watched)
    build_scan_report(write_measured(tmp_path, [scan(f"s{i}", "a", 2.0, 0) for i in range(6)]))
    assert len(most) == 6
    assert max(most) == 1  # the one just written


def test_progress_sees_every_scan_and_an_error_leaves_the_old_page(tmp_path: Path) -> None:
    folder = write_measured(tmp_path)
    out = tmp_path / "out"
    seen = []

    def progress(entries: Any) -> Iterator[Any]:
        for entry in entries:
            seen.append(entry.name)
            yield entry

    path = build_scan_report(folder / "measurements.json", out, slices=2, progress=progress)
    assert path == out / "report.html"
    assert seen == [HOSTILE, "s10", "s9", "s2"]  # most flags first

    def breaking(entries: Any) -> Iterator[Any]:
        yield entries[0]
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        build_scan_report(folder, out, progress=breaking)
    assert path.read_bytes() == before
    assert [file.name for file in out.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "no measurements.json"),
        ("{", "cannot be read"),
        ("[]", "the format 'list'"),
        ('{"format": "other 2"}', "the format 'other 2'"),
        ('{"format": "grn-monai measurements 1", "scans": [{}]}', "scans without a name"),
        ('{"format": "grn-monai measurements 1", "scans": [], "labels": {"fat": "fat"}}', "labels"),
        ('{"format": "grn-monai measurements 1", "scans": [], "labels": {"300": "fat"}}', "label values [300]"),
    ],
)
def test_bad_measurements_are_refused(tmp_path: Path, content: str | None, found: str) -> None:
    if content is not None:
        (tmp_path / "measurements.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(found)):
        build_scan_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_reads_what_measure_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    _, labels = volumes()
    items = []
    for name, subject, side in (("a1", "ann", "left"), ("a2", "ann", "right"), ("b1", "bob", "left")):
        image = (labels * 25 + rng.integers(0, 30, SHAPE)).astype(np.uint8)
        paths = {
            "image": save(tmp_path / f"c/{name}.nii.gz", image),
            "label": save(tmp_path / f"c/l/{name}.nii.gz", labels),
        }
        items.append({**paths, "subject": subject, "scan": name, "side": side, "site": "L4"})
    cohort = {"name": "simulated bands", "labels": {"0": "background"}, "training": [], "test": items}
    (tmp_path / "c/dataset.json").write_text(json.dumps(cohort))
    measure_folders(tmp_path / "c", None, tmp_path / "measured", maps="none")
    page = Page(build_scan_report(tmp_path / "measured", slices=3).read_text())
    assert page.open == []
    assert len(page.images) == 3 * 2
    assert "3 scans of 2 subjects" in page.text
    # fat of 10 voxels in one half of the scan and 14 in the other, each 0.25 mm; ann's sides are alike
    assert "3.00 ± 0.50" in page.text
    assert "Left and right" in page.text
    assert "+0.00" in page.text


def test_negative_slices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 or more slices"):
        build_scan_report(write_measured(tmp_path), slices=-1)


def test_measurements_are_found_by_file_or_folder(tmp_path: Path) -> None:
    assert find_measurements(tmp_path) is None
    folder = write_measured(tmp_path)
    assert find_measurements(folder) == find_measurements(folder / "measurements.json") == folder / "measurements.json"
    assert find_measurements(folder / "data/image.nii.gz") is None


def test_colour_bars_are_common_to_all_scans(tmp_path: Path) -> None:
    folder = write_measured(tmp_path, [scan("a", "a", 2.0, 0), scan("b", "b", 6.7, 0)])
    text = build_scan_report(folder, slices=0).read_text()
    data = json.loads(re.search(r'id="page-data">(.*?)</script>', text, re.DOTALL).group(1))  # type: ignore[union-attr]
    # P95: 7.2 of fat, 1 of dermis, 5 of muscle
    assert [data["labels"][value]["top_mm"] for value in "216"] == pytest.approx([8.0, 1.0, 5.0])
    assert len(data["viridis"]) == 64


def test_every_label_has_a_colour() -> None:
    assert label_colours({1: "dermis", 6: "muscle"}) == {1: LAYER_COLOURS[1], 6: LAYER_COLOURS[6]}
    colours = label_colours({value: f"part {value}" for value in range(1, 256)})
    assert len(colours) == 255
    assert all(re.fullmatch(r"#[0-9A-F]{6}", colour) for colour in colours.values())
    assert len(set(colours.values())) > 250
    lut = lut_of({3: "#0102FF"})
    assert lut.shape == (256, 3)
    assert lut[3].tolist() == [1, 2, 255]
    assert lut.sum() == 258


def test_planes_one_voxel_wide_are_left_out(tmp_path: Path) -> None:
    for axis, kept in ((0, "Sagittal"), (1, "Transverse")):  # one voxel along X leaves the sagittal slice, and so on
        image, labels = (volume.take([6], axis) for volume in volumes())
        found = scan_pictures(save(tmp_path / "i.nii.gz", image), save(tmp_path / "l.nii.gz", labels), NAMES, LUT, 9)
        assert [plane["title"] for plane in found.content["planes"]] == [kept]
        assert list(found.stills) == [kept]
        thickness = found.content["thickness"]
        assert (thickness["width"], thickness["height"]) == image.shape[:2]
        for value, counts in zip(thickness["labels"], _maps(thickness), strict=True):
            np.testing.assert_array_equal(counts.T, np.count_nonzero(labels == value, axis=2))
    # one axial slice of labels that are no layers, feet to head along the second axis: a sagittal one is one voxel high
    image, labels = (volume[:, 5:6] for volume in volumes())
    affine = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 1]])
    paths = []
    for name, array in (("i", image), ("l", labels)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
        paths.append(tmp_path / f"{name}.nii.gz")
    flat = scan_pictures(*paths, NAMES, LUT, 9, depth=None)
    assert [plane["title"] for plane in flat.content["planes"]] == ["Axial"]


def test_the_page_names_files_and_not_the_folders_they_lie_in(tmp_path: Path) -> None:
    private = tmp_path / "jane doe"
    private.mkdir()
    source = {"cohort": str(private / "study/dataset.json"), "predictions": str(private / "out"), "compare": None}
    scans = [
        scan("one", "a", 2.0, 0),  # absolute paths, to the files that are there
        scan(
            "two", "a", 2.0, 0, image="data/image.nii.gz", segmentation="data/seg.nii.gz"
        ),  # to the measurements' folder
        scan("three", "a", 2.0, 0, segmentation=str(private / "out/gone_seg.nii.gz")),
        scan("four", "a", 2.0, 0, image="C:\\jane doe\\scan.nii.gz"),
    ]
    failures = {
        "five": f"{private}/out/five_seg.nii.gz: found an empty file",
        "six": f"{private}/study/six.nii: no file",
    }
    folder = write_measured(private, scans, source=source, failures=failures)
    page = Page(build_scan_report(folder, slices=3).read_text(encoding="utf-8"))
    assert len(page.images) == 2 * 2
    assert "jane doe" not in page.text.replace("jane doe/measurements", "")
    for words in ("image.nii.gz", "gone_seg.nii.gz: found no such file", "five_seg.nii.gz: found", "six.nii: no file"):
        assert words in page.text
    assert page.text.index("study") < page.text.index("Scans that need a look")  # the title
    assert str(private) not in (private / "report.html").read_text(encoding="utf-8")


def test_checks_that_could_not_be_made_stand_beside_the_verdict(tmp_path: Path) -> None:
    whole = scan("whole", "a", 2.0, 0)
    whole["quality"]["flags"] = whole["quality"]["flags"][:2]
    page = Page(build_scan_report(write_measured(tmp_path, [scan("part", "a", 2.0, 0), whole]), slices=0).read_text())
    words = " ".join(page.text.split())
    assert words.count("ok (1 not checked)") == 2  # in the table, and above the scan
    assert words.count("ok") - words.count("ok (") >= 2


def test_what_else_is_known_of_a_scan_is_shown(tmp_path: Path) -> None:
    one = scan("one", "a", 2.0, 0, echo_scale={"rule": "8-bit", "black": 0.0, "white": 255.0}, status="control")
    other = scan("two", "a", 2.0, 0, echo_scale={"rule": "percentiles", "black": 3.25, "white": 81.0})
    for layer in one["layers"]:
        layer |= {"normal_thickness_mm": layer["thickness_mm"], "normal_coverage_percent": 87.25}
    page = Page(
        build_scan_report(write_measured(tmp_path, [one, other], notes=["labels are dull"]), slices=0).read_text()
    )
    for words in (
        "0 % is grey 0, 100 % is grey 255 (8-bit)",
        "0 % is grey 3.25, 100 % is grey 81, the 0.5th",
        "Labels are dull.",
        "on 87.2 % of all A-lines",
        "Status",
        "control",
    ):
        assert words in page.text


@pytest.mark.parametrize(
    ("cohort", "title"), [("..", "jane"), ("../other/dataset.json", "other"), (None, "measured"), ("/a/b c", "b c")]
)
def test_title_is_the_name_of_the_cohort_folder(tmp_path: Path, cohort: str | None, title: str) -> None:
    folder = tmp_path / "jane/measured"
    folder.mkdir(parents=True)
    failures = {"lost": f"{tmp_path / 'jane'}/images/lost.nii.gz: empty"}
    text = build_scan_report(write_measured(folder, source={"cohort": cohort}, failures=failures), slices=0).read_text()
    assert f"<h1>{title}</h1>" in text
    if cohort == "..":
        assert "</b>: images/lost.nii.gz: empty" in text
