"""Stacks of pictures: places of single pixels by hand, order of names, colour, sizes, and masks in both layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import LoadImaged
from PIL import Image

from grn_monai.data.readers.slices import SliceStackReader, natural_order
from grn_monai.errors import InputError
from tests.data.readers.hdf5_files import speckle

STEPS = (0.3, 0.5, 0.1)
ROWS, COLUMNS, SLICES = 7, 5, 3


def stack(dtype: Any = np.uint8) -> np.ndarray:
    return speckle((SLICES, ROWS, COLUMNS), dtype)


def save(folder: Path, pictures: np.ndarray, ending: str = ".png") -> list[Path]:
    paths = [folder / f"slice{k + 1}{ending}" for k in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def save_masks(folder: Path, arrays: list[np.ndarray], zooms: tuple[float, ...] = (1, 1, 1)) -> list[Path]:
    paths = [folder / f"slice{k + 1}.nii.gz" for k in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        image = nib.Nifti1Image(array, np.eye(4))
        image.header.set_zooms(zooms[: array.ndim])
        nib.save(image, path)
    return paths


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("plane", ["transverse", "sagittal"])
def test_pixels_go_to_their_places(tmp_path: Path, ending: str, plane: Any) -> None:
    pictures = stack()
    volume = SliceStackReader(STEPS, plane=plane).read(save(tmp_path, pictures, ending))
    for k, row, column in ((0, 0, 0), (2, 6, 1), (1, 3, 4)):
        place = (column, k, row) if plane == "transverse" else (k, column, row)
        assert volume.voxels[place] == pictures[k, row, column]
    assert volume.voxels.shape == ((5, 3, 7) if plane == "transverse" else (3, 5, 7))
    assert volume.spacing == pytest.approx(STEPS)
    assert not volume.oriented


def test_jpeg_is_near_its_source(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(0, 250, 64)[:, None], (2, 64, 48)).astype(np.uint8)
    voxels = SliceStackReader(STEPS).read(save(tmp_path, smooth, ".jpg")).voxels
    np.testing.assert_allclose(voxels, smooth.transpose(2, 0, 1), atol=4)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.bool_])
def test_other_pixel_types(tmp_path: Path, dtype: type) -> None:
    pictures = stack(np.uint16) % 2 == 1 if dtype is np.bool_ else stack(dtype)
    voxels = SliceStackReader(STEPS).read(save(tmp_path, pictures, ".tif")).voxels
    np.testing.assert_array_equal(voxels, pictures.transpose(2, 0, 1))
    assert voxels.dtype == (np.uint8 if dtype is np.bool_ else dtype)


def test_order_is_that_of_the_list(tmp_path: Path) -> None:
    pictures = stack()
    voxels = SliceStackReader(STEPS).read(save(tmp_path, pictures)[::-1]).voxels
    np.testing.assert_array_equal(voxels, pictures[::-1].transpose(2, 0, 1))


def test_natural_order() -> None:
    names = ["b/slice1.png", "a/slice10.png", "a/slice2.png", "a/Slice1.png", "a/s1_10.png", "a/s1_9.png"]
    expected = ["a/s1_9.png", "a/s1_10.png", "a/Slice1.png", "a/slice2.png", "a/slice10.png", "b/slice1.png"]
    assert natural_order(names) == expected
    assert natural_order(Path(name) for name in names) == [Path(name) for name in expected]


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_numeric(numbers: list[int]) -> None:
    assert natural_order([f"scan_{n}.png" for n in numbers]) == [f"scan_{n}.png" for n in sorted(numbers)]


@given(st.lists(st.text("aB1²9._-", min_size=1, max_size=8)))
def test_natural_order_takes_any_names_and_not_their_order(names: list[str]) -> None:
    assert natural_order(names) == natural_order(names[::-1])


def test_colour(tmp_path: Path) -> None:
    grey = stack()
    same = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(SliceStackReader(STEPS).read(save(tmp_path, same)).voxels, grey.transpose(2, 0, 1))
    tinted = same.copy()
    tinted[1, 2, 3] = (100, 50, 20)
    paths = save(tmp_path, tinted)
    with pytest.raises(
        InputError, match=r'colour picture \(channels differ by up to 80 levels\).*colour="luminance"'
    ) as e:
        SliceStackReader(STEPS).read(paths)
    assert e.value.where == str(paths[1])
    voxels = SliceStackReader(STEPS, colour="luminance").read(paths).voxels
    assert voxels[3, 1, 2] == 62  # 0.299 · 100 + 0.587 · 50 + 0.114 · 20 = 61.53
    tinted[1, 2, 3] = (100, 99, 98)
    with pytest.raises(InputError, match="colour picture"):
        SliceStackReader(STEPS, kind="label").read(save(tmp_path, tinted))


@pytest.mark.parametrize("zooms", [(1.0, 1.0), (0.3, 0.1)])
@pytest.mark.parametrize("layout", ["(W, H)", "(W, H, 1)"])
def test_nifti_masks(tmp_path: Path, layout: str, zooms: tuple[float, float]) -> None:
    masks = stack() % 7
    arrays = [mask.T if layout == "(W, H)" else mask.T[..., None] for mask in masks]
    paths = save_masks(tmp_path, arrays, (*zooms, 1.0))
    volume = SliceStackReader(STEPS, kind="label", size=(COLUMNS, ROWS)).read(paths)
    np.testing.assert_array_equal(volume.voxels, masks.transpose(2, 0, 1))
    if zooms == (1.0, 1.0):
        with pytest.raises(InputError, match="no voxel size along X, Z"):
            SliceStackReader((None, 0.5, None), kind="label").read(paths)
    else:
        assert SliceStackReader((None, 0.5, None), kind="label").read(paths).spacing == pytest.approx(STEPS)
        with pytest.raises(InputError, match="no voxel size along Y"):
            SliceStackReader(kind="label").read(paths)


def test_masks_saved_as_rows_and_columns_are_turned_by_the_size(tmp_path: Path) -> None:
    masks = stack() % 7
    paths = save_masks(tmp_path, list(masks), (0.1, 0.3))
    volume = SliceStackReader((None, 0.5, None), kind="label", size=(COLUMNS, ROWS)).read(paths)
    np.testing.assert_array_equal(volume.voxels, masks.transpose(2, 0, 1))
    assert volume.spacing == pytest.approx(STEPS)
    with pytest.raises(InputError, match=r"7 × 5 pixels; expected 6 × 5 \(columns × rows\)") as caught:
        SliceStackReader(STEPS, kind="label", size=(6, 5)).read(paths)
    assert caught.value.where == str(paths[0])


def test_square_masks_ask_for_the_order_of_their_axes(tmp_path: Path) -> None:
    masks = speckle((2, 6, 6)) % 7
    for order, arrays in (("columns-first", [mask.T for mask in masks]), ("rows-first", list(masks))):
        (tmp_path / order).mkdir()
        paths = save_masks(tmp_path / order, arrays)
        with pytest.raises(InputError, match=r"a square NIfTI mask \(6 × 6\).*mask_order"):
            SliceStackReader(STEPS, kind="label", size=(6, 6)).read(paths)
        reader = SliceStackReader(STEPS, kind="label", size=(6, 6), mask_order=order)
        np.testing.assert_array_equal(reader.read(paths).voxels, masks.transpose(2, 0, 1))


def test_the_size_tells_the_order_of_masks_that_are_not_square(tmp_path: Path) -> None:
    masks = stack() % 7
    paths = save_masks(tmp_path, [mask.T for mask in masks])
    for order in ("columns-first", "rows-first"):
        reader = SliceStackReader(STEPS, kind="label", size=(COLUMNS, ROWS), mask_order=order)
        np.testing.assert_array_equal(reader.read(paths).voxels, masks.transpose(2, 0, 1))


def test_a_spacing_that_contradicts_nifti_slices_is_refused(tmp_path: Path) -> None:
    paths = save_masks(tmp_path, [m.T for m in stack()], (0.3, 0.1))
    assert SliceStackReader(STEPS).read(paths).spacing == pytest.approx(STEPS)
    with pytest.raises(InputError, match=r"0\.4 mm given along X, where the file itself says 0\.3 mm"):
        SliceStackReader((0.4, 0.5, 0.1)).read(paths)
    assert SliceStackReader((0.4, 0.5, 0.1), kind="label").read(paths).spacing == pytest.approx((0.4, 0.5, 0.1))


def test_float_labels_must_be_whole(tmp_path: Path) -> None:
    masks = list((stack() % 7).astype(np.float32))
    assert SliceStackReader(STEPS, kind="label").read(save_masks(tmp_path, masks)).voxels.dtype == np.int32
    masks[2][0, 0] = 0.5
    with pytest.raises(InputError, match="not whole numbers") as caught:
        SliceStackReader(STEPS, kind="label").read(save_masks(tmp_path, masks))
    assert caught.value.where == str(tmp_path / "slice3.nii.gz")


@pytest.mark.parametrize("what", ["size", "type", "pages", "one", "volume", "extension", "cut", "text", "zooms"])
def test_refused(tmp_path: Path, what: str) -> None:
    paths = save(tmp_path, stack(), ".tif")
    second, found = paths[1], "cannot be decoded"
    if what == "size":
        Image.fromarray(np.zeros((ROWS, COLUMNS + 1), np.uint8)).save(second)
        found = "6 × 7 pixels; expected 5 × 7, as in slice1.tif"
    elif what == "type":
        Image.fromarray(stack(np.uint16)[0]).save(second)
        found = "pixels of type uint16; expected uint8, as in slice1.tif"
    elif what == "pages":
        Image.fromarray(stack()[0]).save(second, save_all=True, append_images=[Image.fromarray(stack()[1])])
        found = "2 pages"
    elif what == "one":
        paths, second, found = paths[:1], paths[0], "one slice; expected the slices"
    elif what == "volume":
        paths = save_masks(tmp_path, [stack(), stack()])
        second, found = paths[0], "an array of 3 × 7 × 5"
    elif what == "extension":
        paths[1] = second = second.rename(tmp_path / "slice2.gif")
        found = "the extension '.gif'"
    elif what == "cut":
        second.write_bytes(second.read_bytes()[:60])
    elif what == "text":
        second.write_text("a picture")
    elif what == "zooms":
        paths = save_masks(tmp_path, [stack()[0]] * 2, (0.3, 0.1))
        save_masks(tmp_path, [stack()[0]], (0.4, 0.1))[0].rename(paths[1])
        paths[0] = save_masks(tmp_path, [stack()[0]], (0.3, 0.1))[0]
        second, found = paths[1], "voxel size"
    steps = None if what == "one" else STEPS
    with pytest.raises(InputError, match=found) as caught:
        SliceStackReader(steps).read(paths)
    assert caught.value.where == str(second)


def test_a_single_picture_with_its_thickness_is_a_volume(tmp_path: Path) -> None:
    [path, *_] = save(tmp_path, stack())
    volume = SliceStackReader((0.3, 2.0, 0.1)).read([path])
    np.testing.assert_array_equal(volume.voxels[:, 0].T, stack()[0])
    assert volume.spacing == pytest.approx((0.3, 2.0, 0.1))


def test_decompression_bomb(tmp_path: Path) -> None:
    paths = save(tmp_path, stack())
    Image.new("L", (20_000, 20_000)).save(paths[2])
    assert paths[2].stat().st_size < 500_000
    with pytest.raises(InputError) as caught:
        SliceStackReader(STEPS).read(paths)
    assert caught.value.where == str(paths[2])


@pytest.mark.parametrize("options", [{"kind": "mask"}, {"plane": "coronal"}, {"colour": "yes"}, {"spacing": (1, 2)}])
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"found .*; expected "):
        SliceStackReader(**options)


def test_load_imaged(tmp_path: Path) -> None:
    pictures = stack()
    paths = [str(path) for path in save(tmp_path, pictures)]
    load = LoadImaged("image", reader=SliceStackReader(STEPS), ensure_channel_first=True)
    np.testing.assert_array_equal(load({"image": paths})["image"].numpy()[0], pictures.transpose(2, 0, 1))
    Path(paths[1]).write_bytes(b"")
    with pytest.raises(InputError, match="empty file") as caught:
        load({"image": paths})
    assert caught.value.where == paths[1]
