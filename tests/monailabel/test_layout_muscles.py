"""Which bundles are laid out together, by the scans; and labels that come along. Needs no MONAI Label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES, LUMBAR_MUSCLE, MRI_MUSCLES
from grn_monai.monailabel.layout import find_runs, lay_out
from grn_monai.monailabel.names import misfit, shared_names
from grn_monai.zoo._labels import label_names, modality_of
from tests.bundles.conftest import ALL, ROOT, run
from tests.monailabel.muscles import CT, CT_SMALL, GRN, MRI, MRI_SMALL, small_cohort

BUNDLES = {name: ROOT / "bundles" / name for name in ALL}


@pytest.fixture(scope="module")
def muscles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One-class CT, five-class CT with GRN+, and MR: trainings and cohorts."""
    folder = tmp_path_factory.mktemp("muscles")
    for kind in ("ct", "mri"):
        small_cohort(folder / kind, kind)
    for name, bundle, overlays, options in (
        ("one", CT, (), CT_SMALL),
        ("five", CT, ("autochthon_iliopsoas", "grn_plus"), {**CT_SMALL, **GRN}),
        ("mr", MRI, (), MRI_SMALL),
    ):
        where = {"dataset_dir": str(folder / ("mri" if bundle == MRI else "ct")), "output_dir": str(folder / name)}
        run(bundle, "train", *overlays, **where, **options)
    return folder


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_cohort_chooses_among_the_trainings(muscles: Path, tmp_path: Path) -> None:
    runs = find_runs(muscles, list(BUNDLES.values()))
    assert set(runs) == {CT, MRI}
    layout = lay_out(tmp_path / "a", list(BUNDLES.values()), runs, str(muscles / "mri"))
    assert set(layout.served) == {MRI}
    assert layout.not_served[CT] == "its scans are CT, those of the cohort MR"
    assert label_names(layout.app / "model" / MRI) == MRI_MUSCLES
    with pytest.raises(InputError, match=r"several sets of labels: .*mri_paraspinal_muscle \(multifidus left"):
        lay_out(tmp_path / "b", list(BUNDLES.values()), runs, str(muscles / "mri" / "images"))
    for options in ({"modalities": ["CT"]}, {"models": [CT]}):
        layout = lay_out(tmp_path / "b", list(BUNDLES.values()), runs, str(muscles / "ct" / "images"), **options)
        assert CT in layout.served
    with pytest.raises(InputError, match="its scans are CT, not US"):
        lay_out(tmp_path / "c", [BUNDLES[CT]], runs, str(muscles / "ct" / "images"), modalities=["US"])


def test_labels_come_along_by_the_names_that_are_served(muscles: Path, tmp_path: Path) -> None:
    truth = {p.name: voxels(p) for p in (muscles / "ct" / "labels").iterdir()}
    for name, names in (("one", LUMBAR_MUSCLE), ("five", CT_MUSCLES)):
        layout = lay_out(tmp_path / name, [BUNDLES[CT]], {CT: muscles / name}, str(muscles / "ct"))
        assert label_names(layout.app / "model" / CT) == names
        labels = sorted((Path(layout.studies) / "labels" / "final").iterdir())
        assert len(labels) == layout.labelled == 2
        for file in labels:
            expected = truth[file.name] if name == "five" else truth[file.name] > 0
            np.testing.assert_array_equal(voxels(file), expected)
            np.testing.assert_allclose(nib.load(file).affine, nib.load(muscles / "ct" / "labels" / file.name).affine)


def test_labels_with_the_numbers_of_another_set_become_classes(muscles: Path, tmp_path: Path) -> None:
    for name in ("ct", "five"):
        shutil.copytree(muscles / name, tmp_path / name)
    for file in (tmp_path / "ct" / "labels").iterdir():
        image = nib.load(file)
        values = voxels(file)
        nib.save(nib.Nifti1Image(np.where(values > 0, values + 85, 5).astype(np.uint8), image.affine), file)
    record = json.loads((tmp_path / "five" / "run.json").read_text())
    record["config"]["label_values"] = "totalsegmentator"
    (tmp_path / "five" / "run.json").write_text(json.dumps(record))
    layout = lay_out(tmp_path / "out", [BUNDLES[CT]], {CT: tmp_path / "five"}, str(tmp_path / "ct"))
    for file in (Path(layout.studies) / "labels" / "final").iterdir():
        np.testing.assert_array_equal(voxels(file), voxels(muscles / "ct" / "labels" / file.name))
    train = yaml.safe_load((layout.app / "model" / CT / "configs" / "train.yaml").read_text())
    assert train["label_values"] is None


def test_an_overlay_that_defined_the_network_is_in_the_copy(muscles: Path, tmp_path: Path) -> None:
    layout = lay_out(tmp_path / "out", [BUNDLES[CT]], {CT: muscles / "five"}, str(muscles / "ct"))
    configs = layout.app / "model" / CT / "configs"
    train, inference = (yaml.safe_load((configs / f"{n}.yaml").read_text()) for n in ("train", "inference"))
    assert train["train"]["trainer"]["_target_"] == "grn_monai.engines.JointTrainer"
    assert len([h for h in train["validate"]["handlers"] if "BestCheckpointSaver" in h["_target_"]]) == 2
    assert inference["network_def"] == train["network_def"]
    assert (inference["base_channels"], inference["out_channels"], inference["slice_size"]) == (4, 5, [32, 32])
    metadata = json.loads((configs / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 5


def test_what_fits_together() -> None:
    assert modality_of(BUNDLES["us_layers_supervised"]) == "US"
    cohort = {"modality": {"0": "MRI"}, "labels": {str(v): n.upper() for v, n in MRI_MUSCLES.items()}}
    assert misfit(BUNDLES[MRI], cohort) == ""
    assert "the cohort 1 skin" in misfit(BUNDLES[MRI], cohort | {"labels": {"0": "background", "1": "skin"}})
    assert misfit(BUNDLES[CT], {"labels": {"0": "background", "1": "skin"}}) == "", "every label is its one"
    assert misfit(BUNDLES[CT], None, ["ct", "MRI"]) == ""
    assert shared_names({name: BUNDLES[name] for name in ("us_layers_semi", "us_layers_supervised")})[6] == "muscle"
    with pytest.raises(InputError, match="--conf models ct_lumbar_muscle"):
        shared_names({CT: BUNDLES[CT], MRI: BUNDLES[MRI]})
