"""What is to be converted: one scan with its files, and the options it is read with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "ReadOptions", "Source"]

KINDS: tuple[str, ...] = (
    "volume", "verasonics", "uff", "raw", "slices", "dicom-us", "dicom-enhanced-us", "dicom-series", "dicom-unread",
)  # fmt: skip
"""What a scan can be stored as; `dicom-unread` is a DICOM file whose header cannot be read."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read a scan where its file does not say it. Each may be None: then the file has to tell.

    Attributes:
        spacing: voxel size along X, Y, Z in mm.
        frame_spacing: mm between the frames of a sweep.
        region: number of the ultrasound region to take, from 1.
        frames: first and last frame of a sweep to take, from 1.
        crop: pixels X0 Y0 X1 Y1 of an ultrasound frame to keep, from 0, last ones included.
        variable: variable of a .mat file, or object of a .uff file.
        label_variable: the same in the label's file.
        axes: order of the axes in a .mat file, such as "zxy".
        volume: number of the volume in a file of several, from 1.
        plane: "transverse" or "sagittal", the plane of stacked slices.
        data: "rf", "iq", "linear", "db" or "grey"; how ultrasound data are stored.
        dynamic_range_db: the range that log compression shows, in dB.
        reference: "max", or the percentile that becomes white.
        whole_frame: take ultrasound frames whole of which nothing tells where the picture is.
        mask_order: "columns-first" (NIfTI's order) or "rows-first", for square NIfTI masks of slices.
        colour: "luminance" takes colour pictures of slices.
    """

    spacing: tuple[float, float, float] | None = None
    frame_spacing: float | None = None
    region: int | None = None
    frames: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    variable: str | None = None
    label_variable: str | None = None
    axes: str | None = None
    volume: int | None = None
    plane: str | None = None
    data: str | None = None
    dynamic_range_db: float | None = None
    reference: str | None = None
    whole_frame: bool | None = None
    mask_order: str | None = None
    colour: str | None = None

    def over(self, other: ReadOptions) -> ReadOptions:
        """These options, with those of `other` where they are None."""
        return ReadOptions(**{key: getattr(other, key) if v is None else v for key, v in asdict(self).items()})


@dataclass(frozen=True)
class Source:
    """One scan to convert.

    Attributes:
        kind: one of `KINDS`.
        files: its files, absolute; several for a series or a stack of slices.
        labels: label files, absolute; several are slices or one file for each structure. Empty: unlabelled.
        subject: who was scanned, as the source names them; None: unknown.
        scan: name of the scan, as the source has it; None: unknown.
        section: section of the cohort; None: by whether there is a label.
        modality: "US", "CT" or "MR".
        keys: further keys of the cohort's item: `side`, `site`, `status`, `repeat`.
        label_values: label value in the files to that of the cohort; empty: as they are. For one file a structure,
            the value of each file by its name.
        options: how to read it.
        problem: what is already known to be wrong with it.
    """

    kind: str
    files: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    subject: str | None = None
    scan: str | None = None
    section: str | None = None
    modality: str = "US"
    keys: dict[str, str] = field(default_factory=dict)
    label_values: dict[str, int] = field(default_factory=dict)
    options: ReadOptions = field(default_factory=ReadOptions)
    problem: str | None = None

    @property
    def part(self) -> str:
        """What tells several scans of one file apart, as JSON."""
        names = ("volume", "frames", "region", "variable", "plane")
        told = {name: value for name in names if (value := getattr(self.options, name)) is not None}
        return json.dumps(told, sort_keys=True)

    @property
    def identity(self) -> str:
        """What makes a scan the same one in a later run: its first file, and its part of it."""
        return f"{self.files[0].resolve()} {self.part}"

    def described(self) -> dict[str, Any]:
        """Everything that decides what is written, as JSON; a converted scan is kept while it stays the same."""
        content = asdict(self)
        content["files"], content["labels"] = [str(p) for p in self.files], [str(p) for p in self.labels]
        return content
