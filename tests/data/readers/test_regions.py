"""Ultrasound regions: units, signs, choice among several, frames of their own, and every fault named."""

from __future__ import annotations

import math

import pytest
from pydicom.dataset import Dataset

from grn_monai.data.readers.regions import check_region, choose_region, frame_regions, is_same_scale
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import region


def holding(*items: Dataset) -> Dataset:
    dataset = Dataset()
    dataset.SequenceOfUltrasoundRegions = list(items)
    return dataset


def only(*items: Dataset) -> list:
    return frame_regions(holding(*items), "x.dcm")


def test_lengths_are_cm_brought_to_mm_whatever_the_sign() -> None:
    (one,) = only(region((1, 2, 30, 40), delta=(0.02, -0.03)))
    assert (one.index, one.box) == (1, (1, 2, 30, 40))
    assert one.delta_y == -0.03
    assert (one.delta_x_mm, one.delta_y_mm) == pytest.approx((0.2, 0.3))
    assert one.is_tissue
    assert one.is_calibrated


@pytest.mark.parametrize("unit", [0, 1, 2, 4, 5, 6, 7, 8, 9, 0xC, 77])
def test_other_units_are_no_lengths(unit: int) -> None:
    (one,) = only(region((0, 0, 9, 9), units=(unit, 3)))
    assert math.isnan(one.delta_x_mm)
    assert not one.is_calibrated
    with pytest.raises(InputError, match=r"without lengths.*spacing=\(X, Z\)"):
        check_region(one, 10, 10, "x.dcm")


@pytest.mark.parametrize("delta", [0.0, math.nan, math.inf])
def test_pixel_sizes_must_be_positive_and_finite(delta: float) -> None:
    (one,) = only(region((0, 0, 9, 9), delta=(0.02, delta)))
    with pytest.raises(InputError, match="finite and not zero"):
        check_region(one, 10, 10, "x.dcm")


def test_a_missing_delta_is_no_length_and_a_missing_bound_an_error() -> None:
    item = region((0, 0, 9, 9))
    del item.PhysicalDeltaX
    assert not only(item)[0].is_calibrated
    del item.RegionLocationMaxX1
    with pytest.raises(InputError, match="region 1 without RegionLocationMaxX1"):
        only(item)


def test_the_only_b_mode_region_is_taken() -> None:
    regions = only(
        region((0, 50, 99, 99), units=(4, 7), spatial_format=3, data_type=3),
        region((0, 0, 49, 49)),
        region((10, 10, 20, 20), data_type=2),
        region((90, 0, 99, 49), spatial_format=5, data_type=0xD),
    )
    chosen = choose_region(regions, "x.dcm")
    assert chosen is not None
    assert chosen.index == 2


def test_several_b_mode_regions_are_listed_and_one_can_be_chosen() -> None:
    regions = only(region((0, 0, 49, 49)), region((50, 0, 99, 49), delta=(0.01, 0.01)))
    with pytest.raises(InputError, match=r"2 B-mode regions.*columns 0–49.*0\.2 × 0\.2.*columns 50–99.*0\.1 × 0\.1"):
        choose_region(regions, "x.dcm")
    chosen = choose_region(regions, "x.dcm", index=2)
    assert chosen is not None
    assert chosen.delta_x_mm == pytest.approx(0.1)
    with pytest.raises(InputError, match="no region 3"):
        choose_region(regions, "x.dcm", index=3)


def test_one_picture_written_twice_is_one() -> None:
    regions = only(region((0, 0, 49, 49)), region((0, 0, 49, 49)))
    chosen = choose_region(regions, "x.dcm")
    assert chosen is not None
    assert chosen.index == 1


def test_a_choice_that_is_no_b_mode_or_no_region_is_refused() -> None:
    regions = only(region((0, 0, 49, 49), spatial_format=2))
    with pytest.raises(InputError, match=r"no B-mode region .*M-mode"):
        choose_region(regions, "x.dcm")
    with pytest.raises(InputError, match="no B-mode picture in region 1"):
        choose_region(regions, "x.dcm", index=1)
    with pytest.raises(InputError, match="no regions"):
        choose_region([], "x.dcm", index=1)
    assert choose_region([], "x.dcm") is None


@pytest.mark.parametrize("box", [(84, 31, 595, 414), (0, 0, 10, 9), (0, 0, 9, 10), (5, 0, 4, 9)])
def test_a_region_outside_its_frame_voids_the_calibration(box: tuple[int, int, int, int]) -> None:
    (one,) = only(region(box))
    with pytest.raises(InputError, match=r"does not fit its frame of 10 columns × 10 rows.*calibration is void"):
        check_region(one, 10, 10, "x.dcm")


def test_a_frames_own_regions_come_first() -> None:
    dataset = holding(region((0, 0, 9, 9)))
    dataset.SharedFunctionalGroupsSequence = [holding(region((0, 0, 8, 8)))]
    dataset.PerFrameFunctionalGroupsSequence = [Dataset(), holding(region((0, 0, 7, 7)))]
    boxes = [frame_regions(dataset, "x.dcm", frame)[0].box[2] for frame in (0, 1, 2)]
    assert boxes == [8, 7, 8]
    del dataset.SharedFunctionalGroupsSequence
    assert frame_regions(dataset, "x.dcm", 0)[0].box[2] == 9


def test_scales_are_alike_to_their_printed_digits_only() -> None:
    one, rounded, other = only(
        region((0, 0, 9, 9), delta=(0.02, 0.02)),
        region((0, 0, 9, 9), delta=(0.0200001, -0.02)),
        region((0, 0, 9, 9), delta=(0.0201, 0.02)),
    )
    assert is_same_scale(one, rounded)
    assert not is_same_scale(one, other)
