"""A packed bundle in fresh processes that find only the installed package, away from the repository."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.zoo import pack_bundle
from tests.bundles.conftest import BUNDLES, ROOT
from tests.zoo.conftest import in_fresh_process, names_in

LOAD = """
import json, os, sys
from pathlib import Path
import torch, monai.bundle, grn_monai
from monai.bundle import create_workflow
name, url, installed, trained, scan, out = sys.argv[1:]
assert Path(grn_monai.__file__).is_relative_to(installed), grn_monai.__file__
here = Path.cwd() / "bundles"
monai.bundle.download(name=name, url=url, bundle_dir=str(here), progress=False)
found = {"bundle_dir": str(here), "source": "github"}
network = monai.bundle.load(name, workflow_type="inference", device="cpu", **found)
loaded, state = network.state_dict(), torch.load(trained, weights_only=True)["model"]
same = sorted(loaded) == sorted(state) and all(torch.equal(loaded[k], v) for k, v in state.items())
if out:
    os.chdir(here / name)
    options = {"dataset_dir": scan, "output_dir": out, "device": "cpu"}
    create_workflow(config_file="configs/inference.json", workflow_type="infer", **options).run()
print(json.dumps(same))
"""
RUN = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--device", "cpu"]


def check(bundle: str, trained: dict, cohort: Path, installed: Path, tmp_path: Path, command: bool) -> None:
    """Download, load and infer as a user of the zoo does: in one process, or with the bundle's command."""
    model, scan = trained[bundle] / "models" / "model.pt", next((cohort / "images").glob("*.nii.gz"))
    made = pack_bundle(ROOT / "bundles" / bundle, tmp_path / "dist", model)
    away, out = tmp_path / "away", tmp_path / "out"
    away.mkdir()
    others = [str(installed), str(model), str(scan), "" if command else str(out)]
    said = in_fresh_process(installed, away, "-c", LOAD, bundle, Path(made["file"]).as_uri(), *others)
    assert json.loads(said.splitlines()[-1]) is True
    if command:
        options = ["--dataset_dir", str(scan), "--output_dir", str(out)]
        in_fresh_process(installed, away / "bundles" / bundle, *RUN, *options)

    saved = nib.load(out / scan.name.replace(".nii.gz", "_seg.nii.gz"))
    assert saved.shape == nib.load(scan).shape
    assert np.allclose(saved.affine, nib.load(scan).affine)
    assert set(np.unique(np.asanyarray(saved.dataobj)).tolist()) <= set(range(7))
    record = json.loads((out / "run.json").read_text())
    assert record["git"] is None  # not run from the repository
    assert record["config"]["slice_size"] == [32, 32]


def test_a_packed_bundle_works_with_the_installed_package_alone(
    trained: dict, cohort: Path, installed: Path, tmp_path: Path
) -> None:
    check("us_layers_grn_plus", trained, cohort, installed, tmp_path, command=False)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_packed_bundle_does(bundle: str, trained: dict, cohort: Path, installed: Path, tmp_path: Path) -> None:
    check(bundle, trained, cohort, installed, tmp_path, command=True)


def test_the_wheel_holds_all_that_the_package_needs(wheel: Path) -> None:
    names = names_in(wheel)
    needed = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "grn_monai").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    assert {"grn_monai/zoo/schema.json", "grn_monai/report/templates/report.html.j2", "grn_monai/py.typed"} <= needed
    assert needed <= names, sorted(needed - names)
    others = {name for name in names - needed if ".dist-info/" not in name}
    assert not others, sorted(others)


def test_the_installed_command_packs(trained: dict, installed: Path, tmp_path: Path) -> None:
    """The schema is found in the installed package."""
    model, bundle = trained["us_layers_supervised"] / "models" / "model.pt", ROOT / "bundles" / "us_layers_supervised"
    code = "import sys; from grn_monai.cli import main; sys.exit(main(sys.argv[1:]))"
    said = in_fresh_process(installed, tmp_path, "-c", code, "pack", str(bundle), "--model", str(model))
    assert (tmp_path / said.splitlines()[-1].partition(":")[0]).is_file()
