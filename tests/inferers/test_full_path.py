"""From a file to a saved label in the file's own geometry, as the bundles do it, also on a real 3D ultrasound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.networks.nets import UNet
from monai.transforms import Compose, Invertd, SaveImaged

from grn_monai.data import AtomicNibabelWriter, read_volume
from grn_monai.inferers import TwoPlaneInferer
from grn_monai.transforms import DepthLast, DepthLastd, LoadScand, OrderedLayersd, ScaleEchod
from tests.data.test_volume import save_itk

PHANTOM = Path(__file__).parents[1] / "data" / "plus" / "SpinePhantomFreehandReconstructed.mha"


def segment(source: Path, folder: Path, depth: dict, network: torch.nn.Module) -> tuple[Path, torch.Tensor]:
    """The inference of a bundle; returns the file and the probabilities in the scan frame."""
    pre = Compose([LoadScand("image"), DepthLastd("image", **depth), ScaleEchod("image")])
    kept = {}
    post = Compose([
        lambda item: kept.update(item) or item,
        OrderedLayersd("pred"),
        Invertd("pred", pre, orig_keys="image"),
        SaveImaged(
            "pred",
            output_dir=folder,
            output_postfix="seg",
            output_ext=".nii.gz",
            output_dtype=np.uint8,
            resample=False,
            separate_folder=False,
            print_log=False,
            writer=AtomicNibabelWriter,
        ),
    ])  # fmt: skip
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": str(source)}], pre), batch_size=1),
        network=network,
        inferer=TwoPlaneInferer(size=(32, 32), batch_size=16),
        postprocessing=post,
    ).run()
    return folder / f"{source.name.split('.')[0]}_seg.nii.gz", kept["pred"]


def unet() -> torch.nn.Module:
    torch.manual_seed(0)
    return UNet(spatial_dims=2, in_channels=1, out_channels=7, channels=(4, 8), strides=(2,)).eval()


def same_grid(first: Path, second: Path) -> None:
    a, b = sitk.ReadImage(str(first)), sitk.ReadImage(str(second))
    assert a.GetSize() == b.GetSize()
    np.testing.assert_allclose(a.GetSpacing(), b.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(a.GetOrigin(), b.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(a.GetDirection(), b.GetDirection(), atol=1e-6)


class Threshold(torch.nn.Module):
    """Layer 1 where the picture is dark, layer 2 where it is bright: the answer is known voxel by voxel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(x), 7, *x.shape[-2:]), -20.0)
        logits[:, 1:2], logits[:, 2:3] = -20 * x, 20 * x
        return logits


@pytest.mark.parametrize(
    ("depth", "axis", "sense"),
    [
        ({"depth_axis": 0}, 0, 1),
        ({"depth_axis": 1, "depth_reversed": True}, 1, -1),
        ({"depth_axis": 2}, 2, 1),
        ({"depth_axis": 2, "depth_reversed": True}, 2, -1),
    ],
)
@pytest.mark.parametrize(("name", "permuted"), [("scan.mha", False), ("scan.nii.gz", True)])
def test_layers_land_on_their_voxels(
    tmp_path: Path, name: str, permuted: bool, depth: dict, axis: int, sense: int
) -> None:
    grid = np.indices((10, 12, 14))
    bright = grid[axis] >= 5 if sense > 0 else grid[axis] < 5  # bright is the deeper part
    source = save_itk(tmp_path / name, np.where(bright, 220, 30).astype(np.uint8), permuted=permuted)
    written, _ = segment(source, tmp_path / "out", depth, Threshold())
    same_grid(written, source)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))).T, np.where(bright, 2, 1))


@pytest.mark.parametrize(
    ("permuted", "letter", "axis", "sense"),
    [(False, "S", 2, 1), (False, "I", 2, -1), (True, "P", 0, 1), (True, "A", 0, -1), (True, "R", 2, 1)],
)
def test_anatomical_direction_of_depth(tmp_path: Path, permuted: bool, letter: str, axis: int, sense: int) -> None:
    test_layers_land_on_their_voxels(tmp_path, "scan.nrrd", permuted, {"depth_axis": letter}, axis, sense)


def test_real_ultrasound(tmp_path: Path) -> None:
    written, probabilities = segment(PHANTOM, tmp_path, {"depth_axis": 1}, unet())
    same_grid(written, PHANTOM)
    label = read_volume(written, "label")
    assert label.shape == (1, 147, 106, 104)
    assert probabilities.shape == (7, 147, 104, 106), "depth, the second axis of the file, comes last"
    torch.testing.assert_close(probabilities.sum(0).as_tensor(), torch.ones(147, 104, 106))
    lines = DepthLast(1)(label)[0].as_tensor().reshape(-1, 106)
    layers = lines.masked_fill(lines == 0, 99).int()
    inside = (lines[:, 1:] > 0) & (lines[:, :-1] > 0)
    assert len(lines.unique()) > 2, "a constant label would be ordered by chance"
    assert (layers.diff(dim=1)[inside] >= 0).all()
    assert sitk.ReadImage(str(written)).GetPixelID() == sitk.sitkUInt8
