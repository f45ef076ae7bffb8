from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from grn_monai.report.palette import LAYER_COLOURS, layer_lut
from grn_monai.report.panels import overlay, png_uri, to_isotropic


def test_isotropic_picture_keeps_labels_and_millimetres() -> None:
    plane = np.arange(12, dtype=np.uint8).reshape(3, 4)  # 3 lateral × 4 depth
    picture = to_isotropic(plane, (0.4, 0.2), 0.2)
    assert picture.shape == (4, 6)  # depth is the row, 0.4 mm takes two columns
    np.testing.assert_array_equal(picture, np.repeat(plane.T, 2, axis=1))


@pytest.mark.parametrize("spacing", [(0.2, 0.15), (0.13, 0.31)])
def test_isotropic_picture_shows_every_voxel_of_the_finer_axis(spacing: tuple[float, float]) -> None:
    plane = np.random.default_rng(0).integers(0, 7, (30, 40)).astype(np.uint8)
    picture = to_isotropic(plane, spacing, min(spacing))
    width, height = (size * step for size, step in zip(plane.shape, spacing, strict=True))
    assert picture.shape[1] / picture.shape[0] == pytest.approx(width / height, rel=0.03)
    assert set(np.unique(picture)) <= set(np.unique(plane))


def test_overlay_leaves_background_grey_and_outlines_layers() -> None:
    labels = np.zeros((6, 6), np.uint8)
    labels[2:] = 4
    rgb = overlay(np.full((6, 6), 0.5), labels)
    assert (rgb[:2] == 128).all()
    np.testing.assert_array_equal(rgb[2], np.broadcast_to(layer_lut()[4], (6, 3)))  # first row of the layer
    assert not np.array_equal(rgb[4, 0], layer_lut()[4])
    assert not (rgb[4, 0] == 128).all()


def test_png_round_trip() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    uri = png_uri(rgb)
    decoded = imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="png")
    np.testing.assert_array_equal(np.rint(decoded[..., :3] * 255), rgb)


def test_neighbouring_layers_differ_for_common_colour_vision_deficiencies() -> None:
    """Simulated with the matrices of Machado et al. (2009), severity 1, on linear RGB."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }
    srgb = layer_lut()[1:] / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for matrix in matrices.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        assert np.linalg.norm(np.diff(seen, axis=0), axis=1).min() > 0.25
    assert len(set(LAYER_COLOURS.values())) == 6
