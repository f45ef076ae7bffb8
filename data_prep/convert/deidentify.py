"""What a source file says beside its voxels, and therefore stays behind: names of attributes, never their values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.convert.source import Source

__all__ = ["removed_metadata"]

# Attributes of the basic profile (PS3.15, Table E.1-1) that name people, dates, places or hold free text.
_IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientIDsSequence", "PatientBirthDate", "PatientBirthTime",
    "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "PatientAddress", "PatientTelephoneNumbers",
    "PatientMotherBirthName", "PatientComments", "EthnicGroup", "Occupation", "MedicalRecordLocator",
    "IssuerOfPatientID", "AdditionalPatientHistory", "InstitutionName", "InstitutionAddress",
    "InstitutionalDepartmentName", "StationName", "ReferringPhysicianName", "PerformingPhysicianName",
    "OperatorsName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "AccessionNumber",
    "StudyID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "StudyDate",
    "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "InstanceCreationDate", "StudyTime",
    "SeriesTime", "AcquisitionTime", "ContentTime", "StudyDescription", "SeriesDescription", "ProtocolName",
    "ImageComments", "DeviceSerialNumber", "PerformedProcedureStepDescription", "RequestedProcedureDescription",
    "RequestAttributesSequence",
)  # fmt: skip


def removed_metadata(source: Source) -> dict[str, Any]:
    """Names of what the source's first file says beside its voxels and grid.

    Returns:
        ``attributes`` (identifying ones, by keyword), ``others`` (number of further ones), ``private`` (number).
        Of all this nothing enters the cohort, since its files are written anew from voxels and affine alone.
    """
    path = source.files[0]
    try:
        if source.kind.startswith("dicom"):
            return _dicom(path)
        if not path.name.lower().endswith((".nii", ".nii.gz")):
            return _itk(path, source.kind)
        names = sorted(_nifti(path))
    except Exception:  # what cannot be read here is reported where the voxels are read
        return {"attributes": [], "others": 0, "private": 0}
    return {"attributes": names, "others": 0, "private": 0}


def _dicom(path: Path) -> dict[str, Any]:
    import pydicom

    data = pydicom.dcmread(path, stop_before_pixels=True)
    attributes = [name for name in _IDENTIFYING if name in data]
    if any(element.tag.group & 0xFF00 == 0x6000 for element in data):
        attributes.append("overlays")
    private = sum(1 for element in data if element.tag.is_private)
    return {"attributes": attributes, "others": len(data) - len(attributes) - private, "private": private}


def _nifti(path: Path) -> Iterator[str]:
    import nibabel as nib

    header: Any = nib.load(path).header
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        if name in header and bytes(header[name]).strip(b"\0 "):
            yield name
    if len(getattr(header, "extensions", [])):
        yield f"{len(header.extensions)} header extensions"


def _itk(path: Path, kind: str) -> dict[str, Any]:
    """Free keys of a MetaImage or NRRD header: those of DICOM by number, others only counted, as anyone named them."""
    if kind != "volume":
        return {"attributes": [], "others": 0, "private": 0}
    import SimpleITK as sitk  # noqa: N813  (the field's name for it)

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    geometry = ("ITK_", "NRRD_space", "NRRD_kinds", "NRRD_sizes")
    keys = [key for key in reader.GetMetaDataKeys() if not key.startswith(geometry)]
    known = sorted(key for key in keys if re.fullmatch(r"[0-9A-Fa-f]{4}[|_,][0-9A-Fa-f]{4}", key))
    return {"attributes": known, "others": len(keys) - len(known), "private": 0}
