"""DICOM ultrasound: picture, geometry and privacy of the volume, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImage
from pydicom.data import get_testdata_file

from grn_monai.data.readers.base import SourceVolume
from grn_monai.data.readers.ultrasound import UltrasoundReader
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import US_MULTI_FRAME_RETIRED, region, save_enhanced, save_ultrasound

BOX = (4, 3, 23, 18)  # 20 columns, 16 rows


def grey(frames: int = 5, rows: int = 24, columns: int = 32) -> np.ndarray:
    return np.random.default_rng(1).integers(20, 200, (frames, rows, columns), dtype=np.uint8)


def read(path: Path | list[Path], **options: Any) -> SourceVolume:
    volume = UltrasoundReader(**{"frame_spacing": 0.5, **options}).read(path)
    assert isinstance(volume, SourceVolume)
    return volume


def refused(path: Path | list[Path], message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=message):
        UltrasoundReader(**options).read(path)


def test_the_region_becomes_a_volume_of_columns_frames_rows(tmp_path: Path) -> None:
    pixels = grey()
    path = save_ultrasound(tmp_path / "a.dcm", pixels, [region(BOX, delta=(0.02, 0.03))])
    volume = read(path)
    assert np.array_equal(volume.voxels, pixels[:, 3:19, 4:24].transpose(2, 0, 1))
    assert volume.voxels.dtype == np.uint8
    assert volume.spacing == pytest.approx((0.2, 0.5, 0.3))
    assert not volume.oriented
    assert volume.placement == {"frames": [0, 5], "rows": [3, 19], "columns": [4, 24]}
    assert volume.facts["burned_in"] == "margins removed, inside not checked"
    assert volume.facts["removed_pixels"] == 24 * 32 - 20 * 16
    assert volume.facts["removed"] == "margins removed: left 4 px, top 3 px, right 8 px, bottom 5 px"


def test_nothing_of_the_patient_is_in_facts_or_placement(tmp_path: Path) -> None:
    path = save_ultrasound(tmp_path / "a.dcm", grey(), [region(BOX)])
    dataset = pydicom.dcmread(path)
    volume = read(path)
    text = repr((dict(volume.facts), dict(volume.placement)))
    secrets = [str(e.value) for e in dataset if e.VR in ("PN", "LO", "SH", "UI", "DA", "TM") and len(str(e.value)) > 2]
    assert "secret-4711" in secrets
    for secret in secrets:
        assert secret not in text


def test_some_frames_and_a_smaller_crop(tmp_path: Path) -> None:
    pixels = grey()
    path = save_ultrasound(tmp_path / "a.dcm", pixels, [region(BOX)])
    volume = read(path, frames=(1, 3), crop=(5, 4, 6, 8))
    assert np.array_equal(volume.voxels, pixels[1:3, 4:9, 5:7].transpose(2, 0, 1))
    assert volume.placement == {"frames": [1, 3], "rows": [4, 9], "columns": [5, 7]}
    refused(path, "frames 2 to 6, counted from 1; expected some within the 5 frames", frames=(1, 6), frame_spacing=1)
    refused(path, "within the picture's", crop=(3, 4, 6, 8), frame_spacing=1)


def test_without_a_cut_the_margins_are_still_blank(tmp_path: Path) -> None:
    pixels = grey()
    path = save_ultrasound(tmp_path / "a.dcm", pixels, [region(BOX)])
    voxels = read(path, crop=False).voxels
    assert voxels.shape == (32, 5, 24)
    assert np.array_equal(voxels[4:24, :, 3:19], pixels[:, 3:19, 4:24].transpose(2, 0, 1))
    voxels[4:24, :, 3:19] = 0
    assert not voxels.any()


def test_colour_becomes_luma_and_its_share_is_noted(tmp_path: Path) -> None:
    pixels = np.repeat(grey()[..., None], 3, axis=-1)
    pixels[2, 5:7, 6:10] = (200, 30, 10)
    path = save_ultrasound(tmp_path / "a.dcm", pixels, [region(BOX)])
    volume = read(path)
    expected = pixels[:, 3:19, 4:24].astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(volume.voxels - expected.transpose(2, 0, 1)).max() <= 1
    tissue = (pixels[..., 0] == pixels[..., 1])[:, 3:19, 4:24].transpose(2, 0, 1)
    assert np.array_equal(volume.voxels[tissue], pixels[:, 3:19, 4:24, 0].transpose(2, 0, 1)[tissue])
    assert volume.facts["coloured_share"] == pytest.approx(8 / (5 * 16 * 20), abs=1e-6)


def test_inverted_and_palette_pictures(tmp_path: Path) -> None:
    pixels = grey()
    inverted = save_ultrasound(tmp_path / "a.dcm", pixels, [region(BOX)], photometric="MONOCHROME1")
    assert np.array_equal(read(inverted).voxels, 255 - pixels[:, 3:19, 4:24].transpose(2, 0, 1))
    table = np.arange(255, -1, -1, dtype=np.uint16) * 257  # a grey palette, back to front
    palette = {
        f"{colour}PaletteColorLookupTable{end}": value
        for colour in ("Red", "Green", "Blue")
        for end, value in (("Descriptor", [256, 0, 16]), ("Data", table.tobytes()))
    }
    path = save_ultrasound(tmp_path / "p.dcm", pixels, [region(BOX)], photometric="PALETTE COLOR", **palette)
    assert np.array_equal(read(path).voxels, 255 - pixels[:, 3:19, 4:24].transpose(2, 0, 1))


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_frames_stay_close_to_what_was_compressed(tmp_path: Path, colour: bool) -> None:
    smooth = np.add.outer(np.arange(24), np.arange(32))[None].repeat(3, 0).astype(np.uint8) * 3
    pixels = np.repeat(smooth[..., None], 3, axis=-1) if colour else smooth
    volume = read(save_ultrasound(tmp_path / "a.dcm", pixels, [region(BOX)], jpeg=True))
    assert np.abs(volume.voxels.astype(int) - smooth[:, 3:19, 4:24].transpose(2, 0, 1)).max() <= 3
    assert volume.facts["coloured_share"] == 0
    assert volume.facts["transfer_syntax"].startswith("JPEG Baseline")


def test_other_regions_in_the_picture_are_blanked_unless_they_share_its_scale(tmp_path: Path) -> None:
    pixels = grey()
    regions = [
        region(BOX),
        region((0, 15, 31, 23), units=(4, 0), spatial_format=4, data_type=10),  # a wave form over the bottom rows
        region((6, 5, 9, 8), data_type=2),  # a colour box of the same picture
        region((20, 3, 23, 6), units=(0, 0), spatial_format=5, flags=1),  # graphics below the picture
    ]
    path = save_ultrasound(tmp_path / "a.dcm", pixels, regions)
    volume = read(path)
    expected = pixels[:, 3:19, 4:24].transpose(2, 0, 1).copy()
    expected[:, :, 12:] = 0
    assert np.array_equal(volume.voxels, expected)
    assert volume.facts["masked_boxes"] == [[0, 15, 31, 23]]
    assert volume.facts["removed"].endswith("bottom 5 px; other regions blanked: 1")
    assert np.array_equal(read(path, mask=False).voxels, pixels[:, 3:19, 4:24].transpose(2, 0, 1))
    covered = save_ultrasound(tmp_path / "b.dcm", pixels, [region(BOX), region((0, 0, 31, 23), spatial_format=5)])
    refused(covered, "other regions cover", frame_spacing=1)


def test_a_cine_loop_is_no_volume_and_one_frame_has_no_thickness(tmp_path: Path) -> None:
    loop = save_ultrasound(tmp_path / "a.dcm", grey(), [region(BOX)])
    refused(loop, "5 frames and no distance.*cine loop.*frame_spacing")
    refused(loop, "three positive numbers", frame_spacing=-1)
    single = save_ultrasound(tmp_path / "b.dcm", grey(1), [region(BOX)])
    refused(single, "one frame and no slice thickness")
    assert read(single).voxels.shape == (20, 1, 16)


def test_without_regions_the_spacing_is_asked_for_and_text_may_be_there(tmp_path: Path) -> None:
    pixels = grey()
    path = save_ultrasound(tmp_path / "a.dcm", pixels, None, PixelSpacing=[0.1, 0.1], BurnedInAnnotation="YES")
    refused(path, "no Sequence of Ultrasound Regions.*0.1.*is no calibration.*spacing", frame_spacing=1)
    volume = read(path, spacing=(0.2, 0.4))
    assert volume.spacing == pytest.approx((0.2, 0.5, 0.4))
    assert np.array_equal(volume.voxels, pixels.transpose(2, 0, 1))
    assert (volume.facts["burned_in"], volume.facts["burned_in_tag"]) == ("unknown", "YES")
    assert volume.facts["removed"] == ""
    assert volume.facts["picture_from"] == "frame"
    assert read(path, spacing=(0.2, 0.4), crop=(1, 1, 9, 9)).facts["picture_from"] == "crop"
    for wrong in ((0.2,), (0.2, 0.0), (0.2, 0.3, 0.4)):
        refused(path, "voxel size", spacing=wrong, frame_spacing=1)


def test_a_spacing_fills_in_for_a_calibration_and_never_replaces_one(tmp_path: Path) -> None:
    path = save_ultrasound(tmp_path / "a.dcm", grey(), [region(BOX, delta=(0.02, 0.03))])
    volume = read(path, spacing=(0.201, 0.3))
    assert volume.spacing == pytest.approx((0.2, 0.5, 0.3))
    assert volume.facts["spacing_from"] == "ultrasound region"
    refused(path, r"0\.21 mm given along X, where the file itself says 0\.2 mm", spacing=(0.21, 0.3), frame_spacing=1)


def test_bounds_that_are_one_pixel_beyond_the_frame_are_clipped(tmp_path: Path) -> None:
    pixels = grey()
    rows, columns = pixels.shape[1:]
    path = save_ultrasound(tmp_path / "a.dcm", pixels, [region((4, 3, columns, rows))])
    volume = read(path)
    assert np.array_equal(volume.voxels, pixels[:, 3:, 4:].transpose(2, 0, 1))
    assert volume.facts["region_clipped"] is True
    assert volume.facts["region_box"] == [4, 3, columns - 1, rows - 1]
    assert read(save_ultrasound(tmp_path / "b.dcm", pixels, [region(BOX)])).facts["region_clipped"] is False
    far = save_ultrasound(tmp_path / "c.dcm", pixels, [region((4, 3, columns + 1, rows))])
    refused(far, "calibration is void", frame_spacing=1)
    assert read(far, spacing=(0.2, 0.2)).facts["picture_from"] == "frame"


def test_a_shrunk_picture_is_refused_and_can_be_read_with_a_spacing(tmp_path: Path) -> None:
    path = get_testdata_file("examples_ybr_color.dcm", download=False)
    refused(path, "columns 84–595, rows 31–414.*calibration is void", frame_spacing=1)
    volume = read(path, spacing=(1.0, 1.0), crop=(42, 16, 297, 206), frames=(0, 2))
    assert volume.voxels.shape == (256, 2, 191)
    assert volume.facts["burned_in"] == "margins removed, inside not checked"


def test_single_frames_are_put_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    pixels = grey()
    paths = [
        save_ultrasound(tmp_path / f"{9 - i}.dcm", pixels[i : i + 1], [region(BOX)], InstanceNumber=i + 1)
        for i in range(5)
    ]
    for given in (paths, paths[::-1], [tmp_path]):
        volume = read(given)
        assert np.array_equal(volume.voxels, pixels[:, 3:19, 4:24].transpose(2, 0, 1))
    assert volume.placement["frames"] == [0, 5]


def test_a_scale_that_changes_between_frames_is_refused(tmp_path: Path) -> None:
    pixels = grey()
    paths = [
        save_ultrasound(
            tmp_path / f"{i}.dcm",
            pixels[i : i + 1],
            [region(BOX, delta=(0.02, 0.02) if i < 3 else (0.04, 0.04))],
            InstanceNumber=i + 1,
        )
        for i in range(5)
    ]
    refused(paths, r"changes at frame 4, counted from 1 .*0\.4 × 0\.4.*before.*0\.2 × 0\.2", frame_spacing=1)
    assert read(paths, frames=(0, 3)).spacing == pytest.approx((0.2, 0.5, 0.2))
    assert read(paths, frames=(3, 5)).spacing == pytest.approx((0.4, 0.5, 0.4))


def test_a_scale_that_changes_inside_a_file_is_refused(tmp_path: Path) -> None:
    own = []
    for i in range(5):
        item = pydicom.Dataset()
        item.SequenceOfUltrasoundRegions = [region(BOX, delta=(0.02, 0.02) if i != 4 else (0.02, 0.03))]
        own.append(item)
    path = save_ultrasound(tmp_path / "a.dcm", grey(), [region(BOX)], PerFrameFunctionalGroupsSequence=own)
    refused(path, "changes at frame 5, counted from 1", frame_spacing=1)


def test_files_that_are_no_sweep_together_are_refused(tmp_path: Path) -> None:
    one = save_ultrasound(tmp_path / "1.dcm", grey(1), [region(BOX)])
    loop = save_ultrasound(tmp_path / "2.dcm", grey(), [region(BOX)], InstanceNumber=2)
    small = save_ultrasound(tmp_path / "3.dcm", grey(1, 20), [region(BOX)], InstanceNumber=2)
    apart = save_ultrasound(tmp_path / "4.dcm", grey(1), [region(BOX)], InstanceNumber=2, SeriesInstanceUID="1.2.3")
    bare = save_ultrasound(tmp_path / "5.dcm", grey(1), None, InstanceNumber=2)
    for other, message in (
        (loop, "with 5 frames"),
        (small, "another kind of frame"),
        (apart, "several series"),
        (bare, "some frames only"),
    ):
        refused([one, other], message, frame_spacing=1)


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.dcm"
    text.write_text("no picture" * 100)
    refused(text, "not DICOM")
    enhanced = save_enhanced(tmp_path / "e.dcm", grey(3), [(0, 0, i) for i in range(3)])
    refused(enhanced, "Enhanced US Volume")
    retired = save_ultrasound(tmp_path / "r.dcm", grey(), [region(BOX)], class_uid=US_MULTI_FRAME_RETIRED)
    assert read(retired).voxels.shape == (20, 5, 16)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "an empty folder")


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = save_ultrasound(tmp_path / "a.dcm", grey(), [region(BOX)], NumberOfFrames=60000)
    refused(path, r"claims 60000 × 24 × 32 × 1 voxels \(43\.9 MiB\)", frame_spacing=1)
    short = save_ultrasound(tmp_path / "b.dcm", grey(), [region(BOX)])
    short.write_bytes(short.read_bytes()[:-700])
    refused(short, "b.dcm", frame_spacing=1)


def test_a_missing_decoder_is_named_with_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_ultrasound(tmp_path / "a.dcm", grey(), [region(BOX)], jpeg=True)
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "is_available", property(lambda _: False))
    refused(path, r'JPEG Baseline.*installed decoder.*pip install "grn-monai\[scans\]"', frame_spacing=1)


def test_it_loads_in_monais_transform(tmp_path: Path) -> None:
    path = save_ultrasound(tmp_path / "a.dcm", grey(), [region(BOX)])
    image = LoadImage(reader=UltrasoundReader(frame_spacing=0.5))(path)
    assert image.shape == (20, 5, 16)
    assert [float(v) for v in image.pixdim] == pytest.approx([0.2, 0.5, 0.2])
    with pytest.raises(InputError, match="frame_spacing"):
        LoadImage(reader=UltrasoundReader())(path)


def test_a_real_loop_of_120_colour_frames() -> None:
    path = get_testdata_file("color3d_jpeg_baseline.dcm", download=False)
    volume = read(path, frames=(10, 12))
    assert volume.voxels.shape == (512, 2, 384)
    assert volume.spacing == pytest.approx((0.5104970559, 0.5, 0.5104970559))
    reference = pydicom.pixels.pixel_array(path, index=11)[31:415, 84:596].astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(volume.voxels[:, 1] - reference.T).max() <= 2
