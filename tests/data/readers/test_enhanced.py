"""Enhanced US Volume: planes sorted and turned by their own geometry, volumes told apart, faults named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.data.readers.base import SourceVolume
from grn_monai.data.readers.enhanced import EnhancedUltrasoundReader
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import region, save_enhanced, save_ultrasound

FRAMES, ROWS, COLUMNS = 4, 6, 5
STEP = 0.7


def grey(frames: int = FRAMES) -> np.ndarray:
    return np.random.default_rng(2).integers(1, 255, (frames, ROWS, COLUMNS), dtype=np.uint8)


def along(direction: Any, order: Any = range(FRAMES), start: Any = (0, 0, 0)) -> list[np.ndarray]:
    return [np.asarray(start, float) + STEP * k * np.asarray(direction, float) for k in order]


def read(path: Path, volume: int | None = None) -> SourceVolume:
    result = EnhancedUltrasoundReader(volume).read(path)
    assert isinstance(result, SourceVolume)
    return result


def refused(path: Path, message: str, volume: int | None = None) -> None:
    with pytest.raises(InputError, match=message):
        EnhancedUltrasoundReader(volume).read(path)


def test_rows_run_into_depth_as_the_standard_draws_it(tmp_path: Path) -> None:
    """Frames in the XY plane of the volume, whose Y is depth: columns are X, planes run against Z, rows are depth."""
    pixels = grey()
    volume = read(save_enhanced(tmp_path / "a.dcm", pixels, along((0, 0, 1)), apex=(0, -20, 0)))
    # column × depth: X × Z = Y gives Y = Z × X = (0, 1, 0) × (1, 0, 0) = (0, 0, -1), the planes backwards.
    assert np.array_equal(volume.voxels, pixels[::-1].transpose(2, 0, 1))
    assert volume.spacing == pytest.approx((0.4, STEP, 0.3))
    assert not volume.oriented
    assert volume.placement == {
        "frames": [0, 1, 2, 3],
        "rows": [0, ROWS],
        "columns": [0, COLUMNS],
        "axes": ["column", "frame", "row"],
        "reversed": [False, True, False],
    }


def test_planes_are_sorted_by_position(tmp_path: Path) -> None:
    pixels = grey()
    order = [2, 0, 3, 1]
    volume = read(save_enhanced(tmp_path / "a.dcm", pixels[order], along((0, 0, 1), order)))
    assert np.array_equal(volume.voxels, pixels[::-1].transpose(2, 0, 1))
    assert volume.placement["frames"] == [1, 3, 0, 2]


def test_c_planes_have_their_depth_across(tmp_path: Path) -> None:
    """Frames parallel to the skin, one below the other: their normal is depth."""
    pixels = grey()
    path = save_enhanced(tmp_path / "a.dcm", pixels, along((0, 1, 0)), cosines=(0, 0, 1, 1, 0, 0))
    volume = read(path)
    assert np.array_equal(volume.voxels, pixels.transpose(1, 2, 0)[:, ::-1])
    assert volume.spacing == pytest.approx((0.3, 0.4, STEP))
    assert volume.facts["depth_axis"] == "frame"


def test_an_apex_below_turns_depth_round(tmp_path: Path) -> None:
    pixels = grey()
    volume = read(save_enhanced(tmp_path / "a.dcm", pixels, along((0, 0, 1)), apex=(0, 50, 0)))
    assert np.array_equal(volume.voxels, pixels[:, ::-1].transpose(2, 0, 1))


def test_the_transducer_matrix_tells_depth(tmp_path: Path) -> None:
    """The transducer's Y is the volume's X: depth runs along the columns of the frames."""
    pixels = grey()
    matrix = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    volume = read(save_enhanced(tmp_path / "a.dcm", pixels, along((0, 0, 1)), matrix=matrix))
    assert volume.placement["axes"] == ["row", "frame", "column"]
    assert np.array_equal(volume.voxels, pixels[::-1, ::-1].transpose(1, 0, 2))
    # With the volume on the other side of the transducer's face, depth runs the other way.
    matrix[1, 3] = -100
    turned = read(save_enhanced(tmp_path / "b.dcm", pixels, along((0, 0, 1)), matrix=matrix))
    assert np.array_equal(turned.voxels, pixels[:, ::-1, ::-1].transpose(1, 0, 2))


@pytest.mark.parametrize("seed", range(5))
def test_any_pose_gives_the_same_right_handed_volume(tmp_path: Path, seed: int) -> None:
    """A volume scanned under a turned frame of reference is the same volume: found without its own index code."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    column, row, start = turn @ (1, 0, 0), turn @ (0, 1, 0), rng.normal(size=3) * 10
    matrix = np.eye(4)
    matrix[:3, :3] = turn.T
    matrix[:3, 3] = -turn.T @ start
    pixels = grey()
    path = save_enhanced(
        tmp_path / "a.dcm", pixels, along(turn @ (0, 0, 1), start=start), cosines=(*column, *row), matrix=matrix
    )
    assert np.array_equal(read(path).voxels, pixels[::-1].transpose(2, 0, 1))


def test_positions_in_the_patient_give_its_affine(tmp_path: Path) -> None:
    pixels = grey()
    cosines, start, normal = (0, 1, 0, 0, 0, -1), np.array((5.0, -3.0, 8.0)), np.array((-1.0, 0, 0))
    places = [start + STEP * k * normal for k in range(FRAMES)]
    volume = read(save_enhanced(tmp_path / "a.dcm", pixels, along((0, 0, 1)), patient=(cosines, places)))
    assert volume.oriented
    for plane, row, column in ((0, 0, 0), (3, 5, 4), (1, 2, 3)):
        lps = places[plane] + 0.4 * column * np.array(cosines[:3]) + 0.3 * row * np.array(cosines[3:])
        (where,) = np.argwhere(volume.voxels == pixels[plane, row, column])[:1]
        index = np.array([column, FRAMES - 1 - plane, row])
        assert volume.voxels[tuple(index)] == pixels[plane, row, column] == volume.voxels[tuple(where)]
        assert (volume.affine @ (*index, 1))[:3] == pytest.approx(lps * (-1, -1, 1))


def test_time_points_and_data_types_are_told_apart(tmp_path: Path) -> None:
    pixels = grey(8)
    places = along((0, 0, 1)) * 2
    timed = save_enhanced(tmp_path / "t.dcm", pixels, places, times=[1] * 4 + [2] * 4)
    refused(timed, "2 volumes .1: 4 planes of TISSUE_INTENSITY; 2: 4 planes.*volume=NUMBER")
    assert np.array_equal(read(timed, 2).voxels, pixels[7:3:-1].transpose(2, 0, 1))
    assert read(timed, 2).placement["frames"] == [4, 5, 6, 7]
    refused(timed, "no volume 3 among 2", 3)
    kinds = ["TISSUE_INTENSITY", "FLOW_VELOCITY"] * 4
    mixed = save_enhanced(tmp_path / "k.dcm", pixels, np.repeat(along((0, 0, 1)), 2, axis=0).tolist(), kinds=kinds)
    refused(mixed, "4 planes of FLOW_VELOCITY")
    assert np.array_equal(read(mixed, 2).voxels, pixels[::2][::-1].transpose(2, 0, 1))


def test_jpeg_planes(tmp_path: Path) -> None:
    smooth = (np.arange(ROWS)[:, None] * 20 + np.arange(COLUMNS)).astype(np.uint8)
    pixels = np.stack([smooth + 10 * k for k in range(FRAMES)]).astype(np.uint8)
    volume = read(save_enhanced(tmp_path / "a.dcm", pixels, along((0, 0, 1)), jpeg=True))
    assert np.abs(volume.voxels.astype(int) - pixels[::-1].transpose(2, 0, 1)).max() <= 4


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (along((0, 0, 1), (0, 1, 2, 4)), "planes 0.7 to 1.4 mm apart"),
        (along((0, 0, 1), (0, 1, 1, 2)), "planes 0 to 0.7 mm apart"),
        (along((0, 0.2, 1)), "shifted sideways"),
        (along((0, 0, 0)), "planes 0 to 0 mm apart"),
        ([(0, 0, float("nan"))] * 4, "4|frame 1"),
    ],
)
def test_planes_that_are_no_grid_are_refused(tmp_path: Path, positions: list, message: str) -> None:
    refused(save_enhanced(tmp_path / "a.dcm", grey(), positions), message)


def test_faulty_geometry_is_refused(tmp_path: Path) -> None:
    skewed = save_enhanced(tmp_path / "a.dcm", grey(), along((0, 0, 1)), cosines=(1, 0, 0, 0.5, 1, 0))
    refused(skewed, "two unit vectors")
    stretched = save_enhanced(tmp_path / "b.dcm", grey(), along((0, 0, 1)), matrix=np.diag([2.0, 1, 1, 1]))
    refused(stretched, "not rigid")
    zero = save_enhanced(tmp_path / "c.dcm", grey(), along((0, 0, 1)), spacing=(0.0, 0.1))
    refused(zero, "voxel size")
    one = save_enhanced(tmp_path / "d.dcm", grey(1), along((0, 0, 1), [0]))
    refused(one, "one plane")
    short = save_enhanced(tmp_path / "e.dcm", grey(), along((0, 0, 1), range(3)))
    refused(short, "3 per-frame functional groups for 4 frames")
    places = [(k, 0.0, 0.0) for k in range(4)]
    against = save_enhanced(tmp_path / "f.dcm", grey(), along((0, 0, 1)), patient=((0, 1, 0, 0, 0, 1), places))
    refused(against, "contradict")
    other = save_ultrasound(tmp_path / "g.dcm", grey(), [region((0, 0, 4, 5))])
    refused(other, "Ultrasound Multi-frame")
