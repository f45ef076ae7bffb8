"""Simulated CT and MR cohorts as files: layout, determinism, resuming, and the command line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_prep.cli import main
from data_prep.simulate.lumbar import LumbarSettings, simulate_lumbar
from data_prep.simulate.lumbar.scan import simulate_volume
from grn_monai.data.cohort import read_cohort
from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES, MRI_MUSCLES

SETTINGS = {m: LumbarSettings(m, split=(2, 1, 1), shape=(48, 48, 6), seed=3) for m in ("ct", "mri")}
NAMES = {m: [f"sim-{m}-{n:03d}" for n in range(1, 5)] for m in SETTINGS}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for modality, settings in SETTINGS.items():
        made[modality] = tmp_path_factory.mktemp("cohorts") / "of" / modality
        assert simulate_lumbar(made[modality], settings, progress=False) == NAMES[modality]
    return made


@pytest.mark.parametrize("modality", ["ct", "mri"])
class TestFiles:
    def test_layout(self, cohorts: dict[str, Path], modality: str) -> None:
        files = {"dataset.json", "simulation.json", "preview.png"}
        for name in NAMES[modality]:
            files |= {f"images/{name}.nii.gz", f"labels/{name}.nii.gz", f"truth/{name}.json"}
        assert set(digests(cohorts[modality])) == files
        assert (cohorts[modality] / "preview.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    def test_dataset_is_a_sound_cohort(self, cohorts: dict[str, Path], modality: str) -> None:
        read = read_cohort(cohorts[modality])
        assert [len(read[s]) for s in ("training", "validation", "test", "unlabeled")] == [2, 1, 1, 0]
        assert read["modality"] == {"0": "CT" if modality == "ct" else "MR"}
        names = CT_MUSCLES if modality == "ct" else MRI_MUSCLES
        assert read["labels"] == {str(v): name for v, name in names.items()}
        for item in read["training"]:
            assert item["subject"] == item["scan"]
            image, label = nib.load(item["image"]), nib.load(item["label"])
            assert (image.affine == label.affine).all()
            assert image.get_data_dtype() == np.int16
            assert label.get_data_dtype() == np.uint8
            bottom = image.affine[2, 3] - image.affine[2, 2] / 2
            heights = list(item["levels"].values())
            assert heights == sorted(heights, reverse=True)
            assert bottom < min(heights) < max(heights) < bottom + 6 * image.affine[2, 2]

    def test_files_hold_the_simulated_volume(self, cohorts: dict[str, Path], modality: str) -> None:
        volume = simulate_volume(SETTINGS[modality], 4)
        for folder, data in (("images", volume.image), ("labels", volume.label)):
            stored = nib.load(cohorts[modality] / folder / f"{NAMES[modality][3]}.nii.gz")
            assert (np.asarray(stored.dataobj) == data).all()
            assert stored.affine == pytest.approx(volume.affine, abs=1e-3)

    def test_record_holds_what_was_drawn_and_what_is_true(self, cohorts: dict[str, Path], modality: str) -> None:
        record = json.loads((cohorts[modality] / "simulation.json").read_text())
        assert record["settings"]["modality"] == modality
        assert list(record["scans"]) == list(record["subjects"]) == NAMES[modality]
        names = CT_MUSCLES if modality == "ct" else MRI_MUSCLES
        for name, scan in record["scans"].items():
            assert scan["muscles"] == json.loads((cohorts[modality] / "truth" / f"{name}.json").read_text())
            label = nib.load(cohorts[modality] / "labels" / f"{name}.nii.gz")
            assert label.header.get_zooms() == pytest.approx(scan["spacing_mm"])
            voxels = np.asarray(label.dataobj)
            for value, muscle in names.items():
                if value:
                    told = scan["muscles"][muscle]
                    assert 0 < told["fat_share"] < 0.7
                    # Pixels of 5 mm and more make the counted volume uncertain.
                    ml = (voxels == value).sum() * np.prod(scan["spacing_mm"]) / 1000
                    assert told["volume_ml"] == pytest.approx(ml, rel=0.35, abs=6)

    def test_deleted_files_are_made_again(self, cohorts: dict[str, Path], modality: str) -> None:
        folder, names = cohorts[modality], NAMES[modality]
        before = digests(folder)
        (folder / "images" / f"{names[1]}.nii.gz").unlink()
        (folder / "truth" / f"{names[2]}.json").unlink()
        (folder / "dataset.json").unlink()
        assert simulate_lumbar(folder, SETTINGS[modality], progress=False) == names[1:3]
        assert digests(folder) == before
        assert simulate_lumbar(folder, SETTINGS[modality], progress=False) == []
        assert digests(folder) == before


def test_two_workers_write_the_same_bytes(cohorts: dict[str, Path], tmp_path: Path) -> None:
    simulate_lumbar(tmp_path / "two", SETTINGS["mri"], workers=2, progress=False)
    assert digests(tmp_path / "two") == digests(cohorts["mri"])


def test_a_stopped_run_has_no_truth_in_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_prep.simulate.lumbar.cohort.write_volume", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate_lumbar(tmp_path / "c", SETTINGS["ct"], progress=False)
    monkeypatch.undo()
    record = json.loads((tmp_path / "c" / "simulation.json").read_text())
    assert not any("muscles" in scan for scan in record["scans"].values())
    assert not (tmp_path / "c" / "dataset.json").exists()
    assert simulate_lumbar(tmp_path / "c", SETTINGS["ct"], progress=False) == NAMES["ct"]


def test_another_modality_or_seed_does_not_mix(cohorts: dict[str, Path]) -> None:
    before = digests(cohorts["ct"])
    with pytest.raises(InputError, match=r"a cohort begun with modality ct.*expected modality mri"):
        simulate_lumbar(cohorts["ct"], SETTINGS["mri"], progress=False)
    other = LumbarSettings("ct", split=(2, 1, 1), shape=(48, 48, 6), seed=4)
    with pytest.raises(InputError, match=r"begun with seed 3; expected seed 4\."):
        simulate_lumbar(cohorts["ct"], other, progress=False)
    assert main(["simulate", "--out", str(cohorts["ct"]), "--subjects", "1", "--scans", "1"]) == 2
    assert digests(cohorts["ct"]) == before


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": 3}', '{"settings": [1]}'])
def test_damaged_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "simulation.json").write_text(content)
    with pytest.raises(InputError, match="no readable settings"):
        simulate_lumbar(tmp_path, SETTINGS["ct"], progress=False)


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="other content"):
        simulate_lumbar(tmp_path, SETTINGS["mri"], progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


class TestCommandLine:
    def run(self, tmp_path: Path, *argv: str) -> int:
        return main(["simulate", "--out", str(tmp_path / "c"), "--workers", "1", *argv])

    def test_ct(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = ("--modality", "ct", "--subjects", "3", "--shape", "40", "40", "4", "--spacing", "9", "9", "50")
        assert self.run(tmp_path, *options) == 0
        assert "3 of 3 scans simulated; look at" in capsys.readouterr().out
        read = read_cohort(tmp_path / "c")
        assert [len(read[s]) for s in ("training", "validation", "test")] == [1, 1, 1]
        assert nib.load(read["test"][0]["image"]).header.get_zooms() == (9, 9, 50)

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (
                ("--modality", "ct", "--scans", "3", "--dynamic-range", "40", "50"),
                "--scans, --dynamic-range: found --modality ct with it; expected --modality us",
            ),
            (("--modality", "mri", "--repeats", "1"), "--repeats: found --modality mri"),
            (("--modality", "mri", "--extent", "9", "9", "9"), "--extent: found --modality mri"),
            (("--modality", "ct", "--split-scans", "1", "1", "1"), "--split-scans: found --modality ct"),
            (("--spacing", "1", "1", "1"), "--spacing: found --modality us with it; expected --modality ct or mri"),
            (("--spacing-jitter", "0.1"), "--spacing-jitter: found --modality us"),
            (("--modality", "ct", "--split", "1", "1", "1", "--subjects", "5"), "--split: found 3 in all; expected 5"),
            (("--modality", "ct", "--subjects", "0"), "--subjects: found 0"),
            (("--modality", "ct", "--workers", "0"), "--workers: found 0"),
            (("--modality", "mri", "--spacing", "1", "1", "nan"), "of nan mm along Z"),
        ],
    )
    def test_refusals(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], words: str
    ) -> None:
        assert self.run(tmp_path, *argv) == 2
        message = capsys.readouterr().err
        assert words in message
        assert message.count("\n") == 1
        assert not (tmp_path / "c").exists()

    def test_unknown_modality(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit) as stop:
            self.run(tmp_path, "--modality", "pet")
        assert stop.value.code == 2

    def test_help_names_the_modalities(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["simulate", "--help"])
        printed = capsys.readouterr().out
        assert "256 × 256 × 40 voxels of 1.4 × 1.4 × 5 mm" in printed
        assert "ct and mri only" in printed

    def test_simulating_needs_no_torch(self) -> None:
        code = "import sys; import data_prep.simulate.lumbar; print({'torch', 'matplotlib'} & set(sys.modules))"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "set()"
