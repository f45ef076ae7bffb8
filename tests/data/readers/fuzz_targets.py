"""One small valid scan of every format, and the reader that a user's files of it go through."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy.io
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from grn_monai.data import readers
from grn_monai.data.volume import read_volume
from tests.data.readers import dicom_files
from tests.data.readers.hdf5_files import save_mat73, save_uff, speckle

__all__ = ["SHAPE", "TARGETS", "Target"]

SHAPE = (23, 19, 17)
SPACING = (0.3, 0.5, 0.1)


@dataclass(frozen=True)
class Target:
    """A format: `make` writes a valid scan into a folder and returns its files, the one to damage first."""

    make: Callable[[Path], list[Path]]
    read: Callable[[list[Path]], Any]


def _itk(ending: str, compress: bool) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        image = sitk.GetImageFromArray(speckle(SHAPE[::-1]))
        image.SetSpacing(SPACING)
        sitk.WriteImage(image, str(folder / f"a{ending}"), compress)
        return sorted(folder.iterdir())

    return make


def _nifti(ending: str, shape: Sequence[int] = SHAPE, count: int = 1) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        paths = [folder / f"{k}{ending}" for k in range(count)]
        for path in paths:
            nib.save(nib.Nifti1Image(speckle(tuple(shape)), np.diag([*SPACING, 1])), path)
        return paths

    return make


def _mat5(compress: bool) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        path = folder / "a.mat"
        scipy.io.savemat(path, {"Img": {"volume": speckle(SHAPE)}, "note": "text"}, do_compression=compress)
        return [path]

    return make


def _mat73(folder: Path) -> list[Path]:
    return [save_mat73(folder / "a.mat", {"Img": [speckle(SHAPE)], "Trans": {"frequency": 7.7}, "note": "text"})]


def _uff(folder: Path) -> list[Path]:
    axes = [np.arange(n) * step * 1e-3 for n, step in zip(SHAPE, SPACING, strict=True)]
    scan = {axis: grid.reshape(-1, 1) for axis, grid in zip("xyz", np.meshgrid(*axes, indexing="ij"), strict=True)}
    return [save_uff(folder / "a.uff", speckle(SHAPE, np.float32).reshape(-1, 1), scan, "uff.scan")]


def _raw(first: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        (folder / "a.raw").write_bytes(speckle(SHAPE).tobytes())
        about = {"shape": SHAPE, "axes": "xyz", "dtype": "uint8", "spacing_mm": SPACING, "scale": "grey"}
        (folder / "a.json").write_text(json.dumps(about))
        return sorted(folder.iterdir(), key=lambda path: path.name != first)

    return make


def _pictures(ending: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        paths = [folder / f"{k}{ending}" for k in range(3)]
        for path, picture in zip(paths, speckle((3, *SHAPE[:2])), strict=True):
            Image.fromarray(picture).save(path)
        return paths

    return make


def _series(compressed: bool) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        pixels = speckle((3, *SHAPE[:2]), np.int16)
        paths = dicom_files.save_series(folder, pixels, (0, 0, 0), (1, 0, 0, 0, 1, 0), (2, 0.7, 0.7))
        if compressed:
            import gdcm

            for path in paths:
                reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
                reader.SetFileName(str(path))
                assert reader.Read()
                change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
                change.SetInput(reader.GetImage())
                assert change.Change()
                writer.SetFileName(str(path))
                writer.SetFile(reader.GetFile())
                writer.SetImage(change.GetOutput())
                assert writer.Write()
        return paths

    return make


def _ultrasound(jpeg: bool) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        regions = [dicom_files.region((1, 2, SHAPE[1] - 2, SHAPE[0] - 2))]
        return [dicom_files.save_ultrasound(folder / "a.dcm", speckle((5, *SHAPE[:2])), regions, jpeg=jpeg)]

    return make


def _enhanced(folder: Path) -> list[Path]:
    positions = [(0.0, 0.0, 0.5 * k) for k in range(5)]
    return [dicom_files.save_enhanced(folder / "a.dcm", speckle((5, *SHAPE[:2])), positions)]


def _volume(paths: list[Path]) -> Any:
    return read_volume(next(path for path in paths if path.suffix != ".raw"))


def _with(reader: Any) -> Callable[[list[Path]], Any]:
    return lambda paths: reader.load(paths if reader.many else paths[:1]).voxels


_STACK = _with(readers.SliceStackReader(SPACING))
_MAT = _with(readers.VerasonicsReader(spacing=SPACING))
_RAW = _with(readers.RawVolumeReader())
_SERIES = _with(readers.DicomSeriesReader())
_US = _with(readers.UltrasoundReader(frame_spacing=0.5))

TARGETS: dict[str, Target] = {
    "NIfTI .nii": Target(_nifti(".nii"), _volume),
    "NIfTI .nii.gz": Target(_nifti(".nii.gz"), _volume),
    "MetaImage .mha": Target(_itk(".mha", False), _volume),
    "MetaImage .mha, compressed": Target(_itk(".mha", True), _volume),
    "MetaImage .mhd + .raw": Target(_itk(".mhd", False), _volume),
    "NRRD": Target(_itk(".nrrd", False), _volume),
    "NRRD, compressed": Target(_itk(".nrrd", True), _volume),
    "Verasonics .mat v5": Target(_mat5(False), _MAT),
    "Verasonics .mat v7": Target(_mat5(True), _MAT),
    "Verasonics .mat v7.3": Target(_mat73, _MAT),
    "UFF": Target(_uff, _with(readers.UFFReader())),
    "raw": Target(_raw("a.raw"), _RAW),
    "raw, sidecar": Target(_raw("a.json"), lambda paths: _RAW([paths[1]])),
    "slices .png": Target(_pictures(".png"), _STACK),
    "slices .jpg": Target(_pictures(".jpg"), _STACK),
    "slices .tif": Target(_pictures(".tif"), _STACK),
    "slices .bmp": Target(_pictures(".bmp"), _STACK),
    "slices .nii.gz": Target(_nifti(".nii.gz", SHAPE[:2], 3), _with(readers.SliceStackReader((None, 0.5, None)))),
    "DICOM series": Target(_series(False), _SERIES),
    "DICOM series, JPEG 2000": Target(_series(True), _SERIES),
    "DICOM ultrasound": Target(_ultrasound(False), _US),
    "DICOM ultrasound, JPEG": Target(_ultrasound(True), _US),
    "DICOM Enhanced US Volume": Target(_enhanced, _with(readers.EnhancedUltrasoundReader())),
}
