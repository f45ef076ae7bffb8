"""The datastore on a folder of scans: which labels are saved, as what, and which are refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from grn_monai.data.volume import check_same_geometry, read_header
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES
from grn_monai.monailabel.studies import LayersDatastore
from tests.monailabel.folder_use import AFFINE, SHAPE, final, label_files, nifti, values


def seg_nrrd(path: Path, layers: np.ndarray, segments: list[tuple[str, int, int]]) -> str:
    """As 3D Slicer writes it: layers ``(L, X, Y, Z)``; name, layer and value of each segment."""
    nrrd = pytest.importorskip("nrrd")
    lps = AFFINE * np.array([[-1], [-1], [1], [1]])
    many = layers.shape[0] > 1
    directions = [*([[np.nan] * 3] if many else []), *lps[:3, :3].T]
    header: dict[str, Any] = {"space": "left-posterior-superior", "space origin": lps[:3, 3]}
    header |= {"kinds": [*(["list"] if many else []), *["domain"] * 3], "space directions": np.array(directions)}
    for index, (name, layer, value) in enumerate(segments):
        header |= {f"Segment{index}_Name": name, f"Segment{index}_Layer": str(layer)}
        header |= {f"Segment{index}_LabelValue": str(value)}
    nrrd.write(str(path), layers if many else layers[0], header)
    return str(path)


def test_without_names_the_numbers_count(store: LayersDatastore, uploads: Path) -> None:
    array = values()
    assert store.save_label("a", nifti(uploads / "t.nii.gz", array), "final", {"user": "site"}) == "a"
    assert np.array_equal(final(store), array)
    assert store.get_labeled_images() == ["a"]
    assert store.get_unlabeled_images() == ["b"]
    info = store.get_label_info("a", "final")
    assert (info["user"], info["name"]) == ("site", "a.nii.gz")
    assert abs(info["ts"] - time.time()) < 60
    (pair,) = store.datalist()
    check_same_geometry(read_header(pair["image"]), read_header(pair["label"]), pair["image"], pair["label"])


def test_names_count_not_the_order_of_the_segments(store: LayersDatastore, uploads: Path) -> None:
    array = values(3)
    given = [{"name": "muscle", "idx": 1}, {"name": "Deep_Fat", "idx": 2}, {"name": "dermis", "idx": 3}]
    store.save_label("a", nifti(uploads / "t.nii.gz", array), "final", {"label_info": given})
    expected = np.array([0, 6, 4, 1], np.uint8)[array]
    assert np.array_equal(final(store), expected)
    kept = store.get_label_info("a", "final")["label_info"]
    assert kept == [{"name": LAYER_NAMES[v], "idx": v} for v in (1, 4, 6)]


@pytest.mark.parametrize(
    ("given", "table"),
    [
        # Slicer: "background" came first and scribbles between; neither is sent nor exported, idx counts them.
        ([("dermis", 2), ("deep fat", 4), ("muscle", 5)], {1: 1, 2: 4, 3: 6}),
        # One without voxels still has its number.
        ([("dermis", 1), ("deep fat", 2), ("muscle", 3)], {1: 1, 3: 6}),
        # Another client's: idx is the value.
        ([("deep fat", 4), ("muscle", 6)], {4: 4, 6: 6}),
        ([("muscle", 3), ("dermis", 1), ("deep fat", 2)], {1: 1, 2: 4, 3: 6}),
        ([("background", 0), ("muscle", 1), ("dermis", 2)], {1: 6, 2: 1}),
    ],
)
def test_which_value_a_name_is_for(
    store: LayersDatastore, uploads: Path, given: list[tuple[str, int]], table: dict[int, int]
) -> None:
    known = np.array([0, *table])
    array = known[np.random.default_rng(2).integers(0, known.size, SHAPE)].astype(np.uint8)
    info = {"label_info": [{"name": name, "idx": index} for name, index in given]}
    store.save_label("a", nifti(uploads / "t.nii.gz", array), "final", info)
    expected = np.array([table.get(value, 0) for value in range(7)], np.uint8)[array]
    assert np.array_equal(final(store), expected)


def test_segmentations_of_slicer(store: LayersDatastore, uploads: Path) -> None:
    """The file names its segments itself, scribbles and background too; layers that do not overlap become one."""
    array = values(3)
    segments = [("background", 0, 1), ("muscle", 1, 1), ("Dermis", 1, 2), ("foreground_scribbles", 0, 2)]
    layers = np.stack([np.where(array == 3, 2, 1), np.where(array < 3, array, 0)]).astype(np.uint8)
    given = [{"name": "muscle", "idx": 2}, {"name": "Dermis", "idx": 3}]
    for path in (uploads / "t.seg.nrrd", uploads / "t.nrrd"):
        store.save_label("a", seg_nrrd(path, layers, segments), "final", {"label_info": given})
        assert np.array_equal(final(store), np.array([0, 6, 1, 0], np.uint8)[array])
    single = seg_nrrd(uploads / "s.seg.nrrd", array[None], [("dermis", 0, 3), ("muscle", 0, 1), ("deep fat", 0, 2)])
    store.save_label("a", single, "final", {})
    assert np.array_equal(final(store), np.array([0, 6, 4, 1], np.uint8)[array])
    check_same_geometry(
        read_header(store.get_image_uri("a")), read_header(store.get_label_uri("a", "final")), "image", "label"
    )


def test_a_label_in_nrrd_takes_the_place_of_one_in_nifti(store: LayersDatastore, uploads: Path) -> None:
    folder = Path(store._datastore.label_path("final"))
    image = sitk.ReadImage(store.get_image_uri("a"))
    old = sitk.GetImageFromArray(values(seed=1).T)
    old.CopyInformation(image)
    sitk.WriteImage(old, str(folder / "a.nrrd"))
    store.refresh()
    assert store.get_label_uri("a", "final").endswith("a.nrrd")
    new = sitk.GetImageFromArray(values(seed=2).T)
    new.CopyInformation(image)
    sitk.WriteImage(new, str(uploads / "t.nrrd"))
    store.save_label("a", str(uploads / "t.nrrd"), "final", {})
    assert np.array_equal(final(store), values(seed=2))
    assert label_files(store) == ["a.nii.gz"]


def _overlap(folder: Path) -> str:
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, :3], layers[1, 2:] = 1, 1
    return seg_nrrd(folder / "t.seg.nrrd", layers, [("dermis", 0, 1), ("muscle", 1, 1)])


def _cut(folder: Path) -> str:
    path = Path(nifti(folder / "t.nii.gz", values()))
    path.write_bytes(path.read_bytes()[:-40])
    return str(path)


def _segments_cut(folder: Path) -> str:
    path = Path(_overlap(folder))
    path.write_bytes(path.read_bytes()[:-20])
    return str(path)


def _text(folder: Path) -> str:
    (folder / "t.seg.nrrd").write_text("no label")
    return str(folder / "t.seg.nrrd")


MOVED = AFFINE + np.array([[0, 0, 0, 0.1], *[[0] * 4] * 3])
NAMED = {"label_info": [{"name": "dermis", "idx": 1}, {"name": "bone", "idx": 2}]}


@pytest.mark.parametrize(
    ("make", "info", "message"),
    [
        (lambda f: nifti(f / "t.nii.gz", values(7)), {}, "unknown label values 7; expected whole label values 0 to 6"),
        (lambda f: nifti(f / "t.nii.gz", values() + np.float32(0.5)), {}, "not whole numbers"),
        (lambda f: nifti(f / "t.nii.gz", values()[:, :, 0]), {}, "a 2D image"),
        (lambda f: nifti(f / "t.nii.gz", np.stack([values(), values()], -1)), {}, "4D data .6 × 5 × 4 × 2."),
        (lambda f: nifti(f / "t.nii.gz", values(), MOVED), {}, "another grid .up to 0.5 voxels off"),
        (lambda f: nifti(f / "t.nii.gz", values() * 0 + 1, np.diag([1, 1, 1, 1.0])), {}, "another grid"),
        (lambda f: nifti(f / "t.nii.gz", values(2)), NAMED, "segments named bone; expected only dermis, "),
        (lambda f: nifti(f / "t.nii.gz", values(5)), NAMED, "without a name in label_info: 3, 4, 5"),
        (lambda f: nifti(f / "t.nii.gz", values(2)), {"label_info": {"dermis": 1}}, "label_info: found"),
        (lambda f: nifti(f / "t.nii.gz", values(2)), ["dermis"], "params: found"),
        (_overlap, {}, "20 voxels that are both dermis and muscle"),
        (_cut, {}, "a file that cannot be decoded"),
        (_text, {}, "a file that is not an NRRD"),
        (_segments_cut, {}, "a segmentation that cannot be read"),
    ],
)
def test_what_is_no_label_is_refused_and_leaves_nothing(
    store: LayersDatastore, uploads: Path, make: Callable[[Path], str], info: Any, message: str
) -> None:
    before = values(seed=9)
    store.save_label("a", nifti(uploads / "first.nii.gz", before), "final", {})
    listed = Path(store._datastore_config_path).read_bytes()
    file = make(uploads)
    with pytest.raises(InputError, match=message) as told:
        store.save_label("a", file, "final", info)
    assert str(uploads) not in str(told.value)  # the client does not know that file
    assert not Path(file).exists()
    assert np.array_equal(final(store), before)
    assert label_files(store) == ["a.nii.gz"]
    assert Path(store._datastore_config_path).read_bytes() == listed


def test_predictions_stay_on_the_grid(store: LayersDatastore, uploads: Path) -> None:
    array = values()
    path = nifti(uploads / "t.nii.gz", array)
    store.save_label("a", path, "original", {"model": "m", "params": {}})
    # No need to compress it again.
    assert Path(store.get_label_uri("a", "original")).read_bytes() == Path(path).read_bytes()
    assert store.get_labeled_images() == []
    with pytest.raises(InputError, match="another grid"):
        store.save_label("a", nifti(uploads / "t.nii.gz", array, MOVED), "original", {"model": "m"})


def test_other_voxel_orders_and_cropped_labels_fit(store: LayersDatastore, uploads: Path) -> None:
    array = values()
    array[0] = 0
    turned = nib.Nifti1Image(array, AFFINE).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(turned, uploads / "t.nii.gz")
    store.save_label("a", str(uploads / "t.nii.gz"), "final", {})
    assert np.array_equal(final(store), array)
    shifted = AFFINE.copy()
    shifted[:3, 3] += AFFINE[:3, 0]
    store.save_label("b", nifti(uploads / "u.nii.gz", array[1:], shifted), "final", {})
    assert np.array_equal(final(store, "b"), array)


def test_only_uploads_are_removed_after_an_error(store: LayersDatastore, uploads: Path, tmp_path: Path) -> None:
    mine = nifti(tmp_path / "mine.nii.gz", values(7))
    sub = uploads / "sub"
    sub.mkdir()
    below = nifti(sub / "t.nii.gz", values(7))
    for file in (mine, below):
        with pytest.raises(InputError, match="unknown label values"):
            store.save_label("a", file, "final", {})
        assert Path(file).exists()
    good = nifti(uploads / "t.nii.gz", values())
    store.save_label("a", good, "final", {})
    assert Path(good).exists()  # MONAI Label removes it after its answer


def test_what_is_not_there(store: LayersDatastore, uploads: Path) -> None:
    file = nifti(uploads / "t.nii.gz", values())
    with pytest.raises(ImageNotFoundException):
        store.save_label("c", file, "final", {})
    assert not Path(file).exists()
    with pytest.raises(ImageNotFoundException):
        store.update_image_info("c", {"x": 1})
    with pytest.raises(ImageNotFoundException):
        store.remove_image("c")
    for call in (lambda: store.update_label_info("a", "final", {}), lambda: store.remove_label("a", "final")):
        with pytest.raises(LabelNotFoundException):
            call()
    with pytest.raises(InputError, match="info: found"):
        store.update_image_info("a", [])  # type: ignore[arg-type]


@pytest.mark.parametrize("tag", ["", "..", "../x", "a/b", "a b", "é", "x" * 65])
def test_tags_are_plain_names(store: LayersDatastore, uploads: Path, tag: str) -> None:
    for call in (
        lambda: store.save_label("a", nifti(uploads / "t.nii.gz", values()), tag, {}),
        lambda: store.remove_label("a", tag),
        lambda: store.update_label_info("a", tag, {}),
    ):
        with pytest.raises(InputError, match="tag: found"):
            call()
    assert label_files(store) == []
