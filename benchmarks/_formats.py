"""One volume in every format, written and read by the format's own library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[np.uint8]
Spacing = tuple[float, float, float]
Load = Callable[[], Any]


def write_nifti(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    import nibabel as nib

    path = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1])), path)
    return path


def load_nifti(path: Path) -> Load:
    import nibabel as nib

    return lambda: np.asarray(nib.load(path).dataobj)


def _write_itk(path: Path, voxels: Voxels, spacing: Spacing) -> Path:
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def _load_itk(path: Path) -> Load:
    import SimpleITK as sitk  # noqa: N813

    return lambda: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def write_mha(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    return _write_itk(folder / "scan.mha", voxels, spacing)


def write_nrrd(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    return _write_itk(folder / "scan.nrrd", voxels, spacing)


load_mha = load_nrrd = _load_itk


def write_mat_v5(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    from scipy.io import savemat

    path = folder / "scan.mat"
    savemat(path, {"ImgData": voxels.transpose(2, 0, 1).astype(np.float32) + 1})
    return path


def write_mat_v73(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    import h5py

    path = folder / "scan.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        # MATLAB writes compressed chunks of whole planes, axes reversed.
        data = voxels.transpose(1, 0, 2).astype(np.float32) + 1
        file.create_dataset("ImgData", data=data, chunks=(1, *data.shape[1:]), compression="gzip", compression_opts=3)
        file["ImgData"].attrs["MATLAB_class"] = np.bytes_("single")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def _load_mat(path: Path) -> Load:
    from pymatreader import read_mat

    return lambda: read_mat(path)["ImgData"]


load_mat_v5 = load_mat_v73 = _load_mat


def write_uff(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    import pyuff_ustb

    path = folder / "scan.uff"
    axes = (np.arange(n) * step / 1000 for n, step in zip(voxels.shape, spacing, strict=True))
    x, y, z = (places.ravel() for places in np.meshgrid(*axes, indexing="ij"))
    scan = pyuff_ustb.Scan(x=x, y=y, z=z)
    data = (voxels.astype(np.complex64) + 1).reshape(-1, 1)
    pyuff_ustb.BeamformedData(scan=scan, data=data).write(str(path), "b_data")
    return path


def load_uff(path: Path) -> Load:
    import pyuff_ustb

    return lambda: pyuff_ustb.Uff(str(path)).read("b_data").data


def write_raw(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    path = folder / "scan.raw"
    voxels.transpose(2, 1, 0).tofile(path)
    sidecar = {"shape": voxels.shape[::-1], "axes": "zyx", "dtype": "uint8", "spacing_mm": spacing, "scale": "grey"}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def load_raw(path: Path) -> Load:
    return lambda: np.fromfile(path, np.uint8)


def write_slices(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    from PIL import Image

    path = folder / "scan"
    path.mkdir()
    for i in range(voxels.shape[1]):
        Image.fromarray(np.ascontiguousarray(voxels[:, i].T)).save(path / f"scan_{i:03d}.png")
    return path


def load_slices(path: Path) -> Load:
    from PIL import Image

    return lambda: np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])


def write_us_multi_frame(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    from tests.data.readers.dicom_files import region, save_ultrasound

    frames = np.ascontiguousarray(voxels.transpose(1, 2, 0))
    box = (0, 0, frames.shape[2] - 1, frames.shape[1] - 1)
    item = region(box, delta=(spacing[0] / 10, spacing[2] / 10))
    return save_ultrasound(folder / "scan.dcm", frames, [item], jpeg=True)


def write_us_enhanced(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    from tests.data.readers.dicom_files import save_enhanced

    frames = np.ascontiguousarray(voxels.transpose(1, 2, 0))
    positions = [(0.0, 0.0, spacing[1] * i) for i in range(len(frames))]
    return save_enhanced(folder / "scan.dcm", frames, positions, spacing=(spacing[2], spacing[0]), jpeg=True)


def _load_dicom(path: Path) -> Load:
    import pydicom

    def load() -> Any:
        return pydicom.dcmread(path).pixel_array

    return load


load_us_multi_frame = load_us_enhanced = _load_dicom


def write_ct_series(folder: Path, voxels: Voxels, spacing: Spacing) -> Path:
    from tests.data.readers.dicom_files import save_series

    path = folder / "series"
    slices = np.ascontiguousarray(voxels.transpose(2, 1, 0)).astype(np.int16)
    save_series(path, slices, (0, 0, 0), (1, 0, 0, 0, 1, 0), (spacing[2], spacing[1], spacing[0]))
    return path


def load_ct_series(path: Path) -> Load:
    import SimpleITK as sitk  # noqa: N813

    def load() -> Any:
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        return sitk.GetArrayFromImage(sitk.ReadImage(names))

    return load
