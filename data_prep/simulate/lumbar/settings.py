"""What a simulated lumbar CT or MR cohort is made of, checked before anything is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from grn_monai.errors import InputError

__all__ = [
    "LUMBAR_VERSION",
    "MODALITIES",
    "LumbarScan",
    "LumbarSettings",
    "default_jitter",
    "default_shape",
    "default_spacing",
    "plan_lumbar",
]

LUMBAR_VERSION = 1
"""Raised whenever the same options would give other volumes, so that two versions are never mixed."""

MODALITIES = ("ct", "mri")

MIN_SHAPE = (32, 32, 4)

_SHAPE = {"ct": (256, 256, 40), "mri": (320, 320, 40)}
_SPACING = {"ct": (1.4, 1.4, 5.0), "mri": (0.7, 0.7, 5.0)}
_JITTER = {"ct": 0.0, "mri": 0.15}

# The muscles of both sides must fit in the plane; the spine is drawn from T11 to S2.
_PLANE_MM = (160.0, 600.0)
_HEIGHT_MM = (30.0, 240.0)


def default_shape(modality: str) -> tuple[int, int, int]:
    """Voxels (X, Y, Z) of a modality's volumes; axial slices are the last axis."""
    return _SHAPE[modality]


def default_spacing(modality: str) -> tuple[float, float, float]:
    """Voxel size in mm."""
    return _SPACING[modality]


def default_jitter(modality: str) -> float:
    """`LumbarSettings.spacing_jitter` of a modality."""
    return _JITTER[modality]


@dataclass(frozen=True)
class LumbarSettings:
    """Options that decide what the volumes look like and how they are split. Every subject has one scan.

    Args:
        modality: "ct" or "mri".
        split: subjects in training, validation and test.
        shape: voxels (X, Y, Z), axial slices last; None is the modality's default.
        spacing_mm: voxel size; None keeps the extent of the modality's default volume.
        seed: of everything drawn. Subjects of one number are the same person in both modalities.
        spacing_jitter: each scan's in-plane spacing is drawn from `spacing_mm · (1 ± spacing_jitter)` and its slice
            distance from `spacing_mm · (1 − spacing_jitter … 1)`; None is 0 for CT and 0.15 for MR.

    Raises:
        InputError: impossible options.
    """

    modality: str = "ct"
    split: tuple[int, int, int] = (8, 2, 4)
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    seed: int = 0
    spacing_jitter: float | None = None

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise InputError("--modality", self.modality, " or ".join(MODALITIES), "Choose one of them.")
        if self.shape is None:
            object.__setattr__(self, "shape", _SHAPE[self.modality])
        if self.spacing_mm is None:
            extent = (n * d for n, d in zip(_SHAPE[self.modality], _SPACING[self.modality], strict=True))
            kept = tuple(round(e / max(n, 1), 4) for e, n in zip(extent, self.voxels, strict=True))
            object.__setattr__(self, "spacing_mm", kept)
        if self.spacing_jitter is None:
            object.__setattr__(self, "spacing_jitter", _JITTER[self.modality])
        if min(self.split) < 0 or self.split[0] < 1:
            found = " ".join(map(str, self.split))
            raise InputError("--split", found, "at least 1 training subject, and none below 0", "Give three counts.")
        if any(n < low for n, low in zip(self.voxels, MIN_SHAPE, strict=True)):
            raise InputError(
                "--shape",
                " ".join(map(str, self.voxels)),
                f"at least {' '.join(map(str, MIN_SHAPE))}",
                "Use a larger shape; the slices come last.",
            )
        if not 0 <= self.jitter <= 0.5:
            raise InputError("--spacing-jitter", f"{self.jitter:g}", "0 to 0.5", "0.15 draws from ±15 %.")
        if self.seed < 0:
            raise InputError("--seed", str(self.seed), "0 or more", "Use a whole number from 0.")
        self._check_extent()

    def _check_extent(self) -> None:
        for axis, (low, high) in enumerate((_PLANE_MM, _PLANE_MM, _HEIGHT_MM)):
            extent = self.voxels[axis] * self.spacing[axis]
            if not low <= extent <= high:  # not a number included
                name = "XYZ"[axis]
                raise InputError(
                    "--shape and --spacing",
                    f"{self.voxels[axis]} voxels of {self.spacing[axis]:g} mm along {name}, {extent:g} mm in all",
                    f"{low:g} to {high:g} mm along {name}",
                    "Change one of the two; the whole lumbar spine is about 180 mm high.",
                )

    @property
    def voxels(self) -> tuple[int, int, int]:
        """`shape`, with the default filled in."""
        assert self.shape is not None
        return self.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """`spacing_mm`, with the default filled in."""
        assert self.spacing_mm is not None
        return self.spacing_mm

    @property
    def jitter(self) -> float:
        """`spacing_jitter`, with the default filled in."""
        assert self.spacing_jitter is not None
        return self.spacing_jitter

    def record(self) -> dict[str, Any]:
        """Write the settings down as JSON knows them, with the simulator's version."""
        record = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {"simulator_version": LUMBAR_VERSION, **record}


@dataclass(frozen=True)
class LumbarScan:
    """One scan of the plan: section of the cohort, subject number from 1, and file name."""

    section: str
    subject: int
    name: str


def plan_lumbar(settings: LumbarSettings) -> list[LumbarScan]:
    """List the scans of a cohort: subjects numbered through training, validation and test."""
    sections = [
        section
        for section, count in zip(("training", "validation", "test"), settings.split, strict=True)
        for _ in range(count)
    ]
    return [
        LumbarScan(section, number, f"sim-{settings.modality}-{number:03d}")
        for number, section in enumerate(sections, 1)
    ]
