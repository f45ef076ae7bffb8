"""A small simulated cohort and one training of each bundle, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow, create_workflow

from data_prep.simulate.cohort import simulate_cohort
from data_prep.simulate.settings import Settings

ROOT = Path(__file__).parents[2]
GRN: dict[str, Any] = {"base_channels": 4}
ADVERSARIAL: dict[str, Any] = {**GRN, "discriminator_channels": 4}
EXTRA: dict[str, dict[str, Any]] = {
    "us_layers_grn_plus": GRN,
    "us_layers_grn_sel": ADVERSARIAL,
    "us_layers_grn_ssl": {**ADVERSARIAL, "fraction": 0.5},
    "us_layers_semi": {"fraction": 0.5},
    "us_layers_supervised": {},
}
"""What each bundle needs beside ``SMALL`` to be small."""
BUNDLES = tuple(EXTRA)
MUSCLES = ("ct_lumbar_muscle", "mri_paraspinal_muscle")
"""Bundles for other scans than ultrasound; their trainings are in their own tests."""
ALL = (*BUNDLES, *MUSCLES)
SMALL: dict[str, Any] = {"slice_size": [32, 32], "device": "cpu", "epochs": 2, "batch_size": 8}


def workflow(bundle: str, *configs: str, workflow_type: str = "train", **overrides: Any) -> ConfigWorkflow:
    """The workflow that `python -m monai.bundle run` builds in the bundle's folder."""
    folder = ROOT / "bundles" / bundle
    return create_workflow(
        config_file=[name if "/" in name else str(folder / "configs" / f"{name}.yaml") for name in configs],
        workflow_type=workflow_type,
        bundle_root=str(folder),
        meta_file=str(folder / "configs" / "metadata.json"),
        logging_file=str(folder / "configs" / "logging.conf"),
        **overrides,
    )


def run(bundle: str, *configs: str, **overrides: Any) -> ConfigWorkflow:
    flow = workflow(bundle, *configs, **overrides)
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    simulate_cohort(
        folder, Settings(split=(2, 1, 2), split_scans=(2, 1, 2), shape=(20, 16, 40), seed=3), workers=1, progress=False
    )
    return folder


class Trained(dict[str, Path]):
    """Output folder of a short training of each bundle, made when it is first asked for."""

    def __init__(self, cohort: Path, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self.cohort, self.factory = cohort, factory

    def __missing__(self, bundle: str) -> Path:
        folder = self.factory.mktemp(bundle)
        run(bundle, "train", dataset_dir=str(self.cohort), output_dir=str(folder), **SMALL, **EXTRA[bundle])
        self[bundle] = folder
        return folder


@pytest.fixture(scope="session")
def trained(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Trained(cohort, tmp_path_factory)
