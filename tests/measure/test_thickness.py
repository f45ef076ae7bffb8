from __future__ import annotations

import numpy as np
import pytest

from grn_monai.labels import LAYERS
from grn_monai.measure import thickness_map
from tests.metrics.layered import layered_truth


def test_slab_of_known_thickness() -> None:
    labels = np.zeros((3, 2, 10), np.uint8)
    labels[..., 2:6] = 2
    labels[1, 1, 4:] = 0  # cut to two voxels
    labels[2, 0, 8] = 2  # one more voxel, apart
    labels[0, 1] = 0
    expected = np.array([[0.6, 0.0], [0.6, 0.3], [0.75, 0.6]], np.float32)
    thickness = thickness_map(labels, 2, 0.15)
    assert thickness.dtype == np.float32
    np.testing.assert_allclose(thickness, expected, rtol=1e-6)


def test_layers_fill_the_depth() -> None:
    labels = layered_truth(0)
    total = sum(thickness_map(labels, label, 0.15) for label in (0, *LAYERS))
    np.testing.assert_allclose(total, labels.shape[2] * 0.15, rtol=1e-6)


@pytest.mark.parametrize(("shape", "spacing"), [((3, 4), 0.1), ((3, 4, 5), 0.0), ((3, 4, 5), float("nan"))])
def test_bad_input(shape: tuple[int, ...], spacing: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        thickness_map(np.zeros(shape, np.uint8), 1, spacing)
