"""From tissue to image: HU of a CT, signal of a T2-weighted MR."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_prep.simulate.grid import Array
from data_prep.simulate.lumbar.acquisition import Acquisition
from data_prep.simulate.lumbar.subject import LumbarSubject
from data_prep.simulate.lumbar.tissues import FAT, Tissue
from data_prep.simulate.lumbar.trunk import back_of_skin

__all__ = ["finish_ct", "finish_mri", "paint_table", "tissue_values"]


def tissue_values(modality: str, acquisition: Acquisition) -> tuple[Array, Array]:
    """Mean value of each tissue, and how much it varies from place to place.

    Returns:
        Two tables by tissue code: HU, or signal relative to about that of fat.
    """
    table = _hu(acquisition) if modality == "ct" else _signal(acquisition)
    mean = np.array([table[tissue][0] for tissue in Tissue], np.float32)
    spread = np.array([table[tissue][1] for tissue in Tissue], np.float32)
    return mean, spread


def _hu(acquisition: Acquisition) -> dict[Tissue, tuple[float, float]]:
    hu = acquisition.drawn["hu"]
    return {
        Tissue.AIR: (-1000, 0),
        Tissue.SKIN: (hu["skin"], 0),
        **dict.fromkeys(FAT, (hu["fat"], 3)),
        Tissue.MUSCLE: (hu["muscle"], 4),
        Tissue.OTHER_MUSCLE: (hu["muscle"] - 3, 6),
        Tissue.FASCIA: (45, 5),
        Tissue.CORTICAL_BONE: (hu["cortical_bone"], 40),
        Tissue.CANCELLOUS_BONE: (hu["cancellous_bone"], 30),
        Tissue.ANNULUS: (hu["disc"] + 10, 5),
        Tissue.NUCLEUS: (hu["disc"] - 5, 5),
        Tissue.CSF: (12, 3),
        Tissue.NERVE: (32, 3),
        Tissue.VESSEL: (hu["vessel"], 4),
        Tissue.KIDNEY: (hu["kidney"], 8),
        Tissue.LIVER: (hu["liver"], 5),
        Tissue.BOWEL: (hu["bowel"], 25),
        Tissue.GAS: (-980, 0),
        Tissue.CALCIFICATION: (500, 0),
        Tissue.TABLE_SHELL: (60, 0),
        Tissue.TABLE_FOAM: (-930, 0),
    }


def _signal(acquisition: Acquisition) -> dict[Tissue, tuple[float, float]]:
    signal = acquisition.drawn["signal"]
    fat, muscle = signal["fat"], signal["muscle"]
    return {
        Tissue.AIR: (0, 0),
        Tissue.SKIN: (0.35, 0.03),
        **dict.fromkeys(FAT, (fat, 0.04)),
        Tissue.MUSCLE: (muscle, 0.02),
        Tissue.OTHER_MUSCLE: (1.1 * muscle, 0.03),
        Tissue.FASCIA: (0.08, 0.02),
        Tissue.CORTICAL_BONE: (0.05, 0.01),
        Tissue.CANCELLOUS_BONE: (signal["marrow"], 0.06),
        Tissue.ANNULUS: (0.13, 0.02),
        Tissue.NUCLEUS: (signal["nucleus"], 0.05),
        Tissue.CSF: (signal["csf"], 0.05),
        Tissue.NERVE: (0.5, 0.08),
        Tissue.VESSEL: (0.07, 0.02),
        Tissue.KIDNEY: (0.6, 0.08),
        Tissue.LIVER: (0.25, 0.03),
        Tissue.BOWEL: (signal["bowel"], 0.15),
        Tissue.GAS: (0.02, 0),
        Tissue.CALCIFICATION: (0.02, 0),
        Tissue.TABLE_SHELL: (0, 0),
        Tissue.TABLE_FOAM: (0, 0),
    }


def paint_table(tissue: NDArray[np.uint8], x: Array, y: Array, subject: LumbarSubject) -> None:
    """Lay the CT table under the person: a shell around foam, slightly hollow.

    Args:
        tissue: (X, Y) tissue codes; air is painted over.
        x, y: sample positions in mm.
        subject: who lies on it.
    """
    lowest = min(back_of_skin(subject, z) for z in np.linspace(-120, 120, 13))
    top = np.float32(lowest - 1) + (x * x / np.float32(1800))[:, None]
    depth = np.minimum(top - y[None, :], (215 - np.abs(x))[:, None])
    air = tissue == Tissue.AIR
    tissue[air & (depth > 0) & (depth < 28)] = Tissue.TABLE_FOAM
    tissue[air & (depth > 6) & (depth < 28)] = Tissue.TABLE_SHELL
    tissue[air & (depth > 9) & (depth < 25)] = Tissue.TABLE_FOAM


def finish_ct(mean: Array, acquisition: Acquisition, rng: np.random.Generator) -> NDArray[np.int16]:
    """Blur and add correlated noise, slice by slice.

    Args:
        mean: (X, Y, Z) HU.
        acquisition: blur in mm and SD of the noise in HU.
        rng: draws the noise.
    """
    sigma = [acquisition.drawn["blur_mm"] / d for d in acquisition.spacing_mm[:2]]
    image = np.empty(mean.shape, np.int16)
    for k in range(mean.shape[2]):
        noise = rng.standard_normal(mean.shape[:2], dtype=np.float32)
        # A reconstruction's noise lacks the lowest frequencies, and the highest.
        noise = ndimage.gaussian_filter(noise, 0.8, truncate=3.0) - 0.8 * ndimage.gaussian_filter(
            noise, 2.0, truncate=3.0
        )
        noise *= np.float32(acquisition.drawn["noise_hu"]) / noise.std()
        blurred = ndimage.gaussian_filter(mean[..., k], sigma, mode="nearest") + noise
        image[..., k] = np.clip(np.rint(blurred), -1024, 3071)
    return image


def finish_mri(
    mean: Array, acquisition: Acquisition, subject: LumbarSubject, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Blur, shade by the coil, add Rician noise and scale.

    Args:
        mean: (X, Y, Z) relative signal.
        acquisition: numbers of the scanner.
        subject: for the place of the back, where the surface coil lies.
        rng: draws the noise.
    """
    drawn = acquisition.drawn
    sigma = [drawn["blur_mm"] / d for d in acquisition.spacing_mm[:2]]
    bias = bias_field(acquisition, subject)
    image = np.empty(mean.shape, np.int16)
    for k in range(mean.shape[2]):
        shaded = ndimage.gaussian_filter(mean[..., k], sigma, mode="nearest") * bias[..., k]
        real, imaginary = drawn["noise"] * rng.standard_normal((2, *shaded.shape), dtype=np.float32)
        image[..., k] = np.clip(np.rint(drawn["gain"] * np.hypot(shaded + real, imaginary)), 0, 32767)
    return image


def bias_field(acquisition: Acquisition, subject: LumbarSubject) -> Array:
    """Smooth shading of a surface coil, (X, Y, Z): bright at the back, and a little uneven."""
    parts = [
        (first + np.arange(n) * d).astype(np.float32)
        for first, n, d in zip(acquisition.first_mm, acquisition.shape, acquisition.spacing_mm, strict=True)
    ]
    x, y, z = np.meshgrid(*parts, indexing="ij", sparse=True)
    depth = np.clip(y - back_of_skin(subject, 0.0), 0, None)
    share = acquisition.drawn["coil_share"]
    near = np.exp(-depth / acquisition.drawn["coil_depth_mm"])
    a = acquisition.drawn["bias"]
    u, v, w = x / 120, (y + 20) / 100, z / 90
    uneven = a[0] * u + a[1] * v + a[2] * w + a[3] * u * v + a[4] * u * w + a[5] * (w * w - 0.3)
    bias: Array = ((1 - share + 1.6 * share * near) * np.exp(uneven)).astype(np.float32)
    return bias
