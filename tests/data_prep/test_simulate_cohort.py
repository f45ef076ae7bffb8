"""Simulated cohorts as files: geometry, determinism, resuming, sizes and refusals."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_prep.cli import main
from data_prep.simulate.cohort import simulate_cohort
from data_prep.simulate.scan import scan_parameters, simulate_scan
from data_prep.simulate.settings import Settings, plan_scans, share_out
from grn_monai.data.cohort import read_cohort
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES

SETTINGS = Settings(split=(2, 1, 1), split_scans=(3, 1, 2), shape=(24, 20, 64))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "made" / "here"
    simulate_cohort(out, SETTINGS, workers=1, progress=False)
    return out


class TestFiles:
    def test_layout(self, cohort: Path) -> None:
        names = [f"sub-00{s}_scan-{k}.nii.gz" for s, k in self.numbers(cohort)]
        expected = {f"{folder}/{name}" for folder in ("images", "labels") for name in names}
        assert set(digests(cohort)) == expected | {"dataset.json", "simulation.json", "preview.png"}

    @staticmethod
    def numbers(cohort: Path) -> list[tuple[int, int]]:
        return [(scan.subject, scan.number) for scan in plan_scans(SETTINGS)]

    def test_dataset_is_a_sound_cohort(self, cohort: Path) -> None:
        read = read_cohort(cohort)
        assert [len(read[s]) for s in ("training", "validation", "test", "unlabeled")] == [3, 1, 2, 0]
        assert [read[f"num{s}"] for s in ("Training", "Validation", "Test")] == [3, 1, 2]
        assert read["labels"] == {str(value): name for value, name in LAYER_NAMES.items()}
        assert {item["side"] for item in read["training"]} == {"left", "right"}
        assert all(42 <= item["dynamic_range_db"] <= 58 for item in read["training"])
        assert not any(os.path.isabs(i["image"]) for i in json.loads((cohort / "dataset.json").read_text())["test"])

    def test_volumes(self, cohort: Path) -> None:
        item = read_cohort(cohort)["test"][1]
        image, label = nib.load(item["image"]), nib.load(item["label"])
        assert image.shape == label.shape == (24, 20, 64)
        assert image.get_data_dtype() == label.get_data_dtype() == np.uint8
        # The extent stays 25.6 × 25.6 × 38.4 mm whatever the shape.
        assert image.header.get_zooms() == pytest.approx((25.6 / 24, 25.6 / 20, 0.6))
        assert (image.affine == label.affine).all()
        assert nib.aff2axcodes(image.affine) == ("L", "S", "A")
        assert np.linalg.det(image.affine[:3, :3]) > 0
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        assert image.get_qform() == pytest.approx(image.affine, abs=1e-5)
        assert set(np.unique(np.asarray(label.dataobj))) <= set(range(7))

    def test_gzip_header_holds_no_time_and_no_name(self, cohort: Path) -> None:
        data = next((cohort / "images").iterdir()).read_bytes()
        assert data[3] == 0  # no flags: no file name
        assert data[4:8] == b"\0\0\0\0"  # no time
        assert len(gzip.decompress(data)) == 352 + 24 * 20 * 64

    def test_record_holds_what_was_drawn(self, cohort: Path) -> None:
        record = json.loads((cohort / "simulation.json").read_text())
        assert record["settings"]["shape"] == [24, 20, 64]
        assert list(record["subjects"]) == ["sub-001", "sub-002", "sub-003", "sub-004"]
        assert list(record["scans"]) == [scan.name for scan in plan_scans(SETTINGS)]
        assert 0.4 <= record["subjects"]["sub-001"]["thickness_mm"]["3"] <= 1.6
        assert 0.72 <= record["scans"]["sub-004_scan-2"]["pressure"] <= 1.12

    def test_preview_is_a_picture(self, cohort: Path) -> None:
        assert (cohort / "preview.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


class TestDeterminismAndResume:
    def test_two_workers_write_the_same_bytes(self, cohort: Path, tmp_path: Path) -> None:
        environment = dict(os.environ)
        simulate_cohort(tmp_path / "two", SETTINGS, workers=2, progress=False)
        assert digests(tmp_path / "two") == digests(cohort)
        assert dict(os.environ) == environment

    def test_another_seed_writes_others(self, cohort: Path, tmp_path: Path) -> None:
        other = Settings(split=(1, 0, 0), split_scans=(1, 0, 0), shape=SETTINGS.shape, seed=1)
        simulate_cohort(tmp_path, other, progress=False)
        name = "images/sub-001_scan-1.nii.gz"
        assert digests(tmp_path)[name] != digests(cohort)[name]

    def test_deleted_volumes_are_made_again(self, cohort: Path) -> None:
        before = digests(cohort)
        times = {p: p.stat().st_mtime_ns for p in cohort.rglob("*.nii.gz")}
        gone = [cohort / "images/sub-002_scan-1.nii.gz", cohort / "labels/sub-004_scan-1.nii.gz"]
        for path in gone:
            path.unlink()
        made = simulate_cohort(cohort, SETTINGS, progress=False)
        assert [scan.name for scan in made] == ["sub-002_scan-1", "sub-004_scan-1"]
        assert digests(cohort) == before
        touched = {p for p, t in times.items() if p.stat().st_mtime_ns != t}
        assert {p.name for p in touched} == {p.name for p in gone}
        assert simulate_cohort(cohort, SETTINGS, progress=False) == []

    @pytest.mark.parametrize(("number", "workers"), [(signal.SIGKILL, "1"), (signal.SIGINT, "2")])
    def test_stopped_run_goes_on(self, tmp_path: Path, number: signal.Signals, workers: str) -> None:
        out = tmp_path / "stopped"
        argv = ["simulate", "--out", str(out), "--subjects", "4", "--scans", "48", "--shape", "48", "48", "96"]
        command = [sys.executable, "-m", "data_prep", *argv, "--workers", workers]
        # A shell starts what runs in its background with Ctrl-C ignored, and children inherit that.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
        deadline = time.monotonic() + 60
        while not list(out.glob("images/[!.]*.nii.gz")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(number)
        _, message = process.communicate(timeout=60)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert message.endswith("stopped; the same command goes on from here\n")
            assert "Traceback" not in message
        there = list(out.glob("images/[!.]*.nii.gz"))
        # With SIGINT, the scans that the two workers have in hand or next in line are finished.
        assert 1 <= len(there) < 48
        assert not (out / "dataset.json").exists()
        for path in there:
            assert np.asarray(nib.load(path).dataobj).shape == (48, 48, 96)
        assert main([*argv, "--workers", "1"]) == 0
        assert len(read_cohort(out)["training"]) == 24
        assert not list(out.glob("*/.*"))  # what the killed process was writing
        for scan in plan_scans(Settings((2, 1, 1), (24, 12, 12), (48, 48, 96)))[::15]:
            image, label, _ = simulate_scan(Settings(shape=(48, 48, 96)), scan.subject, scan.number)
            for folder, data in (("images", image), ("labels", label)):
                stored = nib.load(out / folder / f"{scan.name}.nii.gz")
                assert (np.asarray(stored.dataobj) == data).all()

    def test_repeats_are_of_one_place_and_the_first_is_the_scan_without_repeats(self, tmp_path: Path) -> None:
        alone = Settings(split=(1, 0, 1), split_scans=(2, 0, 1), shape=(24, 20, 64))
        three = Settings(split=(1, 0, 1), split_scans=(2, 0, 1), shape=(24, 20, 64), repeats=3)
        assert "repeats" not in alone.record()  # cohorts made before there were repeats go on
        simulate_cohort(tmp_path, three, progress=False)
        cohort = read_cohort(tmp_path)
        assert (len(cohort["training"]), len(cohort["test"])) == (6, 3)
        first = cohort["training"]
        keys = [(item["side"], item["site"], item["repeat"]) for item in first]
        assert keys == [("left", "place 1", i) for i in (1, 2, 3)] + [("right", "place 2", i) for i in (1, 2, 3)]
        drawn = json.loads((tmp_path / "simulation.json").read_text())["scans"]
        centres = np.array([drawn[item["scan"]]["centre_mm"] for item in first])
        moved = np.linalg.norm(centres.reshape(2, 3, 2) - centres[::3, None], axis=2)
        assert (moved[:, 1:] > 0).all()
        assert (moved < 10).all()  # five SDs of repositioning
        assert len({drawn[item["scan"]]["pressure"] for item in first}) == 6
        assert scan_parameters(three, 1, 4) == scan_parameters(alone, 1, 2)
        for found, expected in zip(simulate_scan(three, 1, 1), simulate_scan(alone, 1, 1), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_other_options_do_not_mix(self, cohort: Path) -> None:
        before = digests(cohort)
        other = Settings(split=(2, 1, 1), split_scans=(3, 1, 2), shape=(24, 20, 64), seed=4)
        with pytest.raises(InputError, match=r"begun with seed 0; expected seed 4\. Repeat"):
            simulate_cohort(cohort, other, progress=False)
        assert digests(cohort) == before

    def test_foreign_folder_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(InputError, match="other content"):
            simulate_cohort(tmp_path, SETTINGS, progress=False)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

    def test_damaged_record(self, tmp_path: Path) -> None:
        (tmp_path / "simulation.json").write_text("{")
        with pytest.raises(InputError, match="no readable settings"):
            simulate_cohort(tmp_path, SETTINGS, progress=False)


class TestSizes:
    def test_published_cohort(self) -> None:
        plan = plan_scans(Settings())
        for section, subjects, scans in (("training", 16, 44), ("validation", 2, 2), ("test", 11, 23)):
            part = [scan for scan in plan if scan.section == section]
            assert len({scan.subject for scan in part}) == subjects
            assert len(part) == scans
        assert len({scan.name for scan in plan}) == 69
        per_subject = np.bincount([scan.subject for scan in plan if scan.section == "training"])[1:]
        assert set(per_subject) == {2, 3}

    @pytest.mark.parametrize(
        ("total", "parts", "least", "expected"),
        [
            # 29 and multiples give the published proportion itself.
            (29, (16, 2, 11), (1, 1, 1), (16, 2, 11)),
            (58, (16, 2, 11), (1, 1, 1), (32, 4, 22)),
            (3, (16, 2, 11), (1, 1, 1), (1, 1, 1)),
            # 6: shares 3.31, 0.41, 2.28; after one each, 2.31 and 1.28 compete for three.
            (6, (16, 2, 11), (1, 1, 1), (3, 1, 2)),
            (8, (3, 1, 2), (3, 1, 2), (4, 1, 3)),
            (10, (1, 1, 0), (1, 1, 0), (5, 5, 0)),
        ],
    )
    def test_share_out(self, total: int, parts: tuple, least: tuple, expected: tuple) -> None:
        assert share_out(total, parts, least) == expected

    def test_share_out_always_adds_up(self) -> None:
        for subjects in range(3, 80):
            split = share_out(subjects, (16, 2, 11), (1, 1, 1))
            assert sum(split) == subjects
            assert min(split) >= 1
            assert sum(share_out(3 * subjects, split, split)) == 3 * subjects


class TestCommandLine:
    def run(self, tmp_path: Path, *argv: str) -> int:
        return main(["simulate", "--out", str(tmp_path / "c"), "--shape", "16", "16", "32", "--workers", "1", *argv])

    @pytest.mark.parametrize(
        ("argv", "sizes"),
        [
            (("--subjects", "6", "--scans", "8"), (4, 1, 3)),
            (("--subjects", "3", "--scans", "3"), (1, 1, 1)),
            (("--subjects", "2", "--scans", "2"), (1, 0, 1)),
            (("--subjects", "1", "--scans", "2"), (2, 0, 0)),
            (("--split", "2", "1", "1", "--split-scans", "2", "1", "3"), (2, 1, 3)),
        ],
    )
    def test_small_cohorts(self, tmp_path: Path, argv: tuple[str, ...], sizes: tuple[int, int, int]) -> None:
        assert self.run(tmp_path, *argv) == 0
        read = read_cohort(tmp_path / "c")
        assert tuple(len(read[s]) for s in ("training", "validation", "test")) == sizes

    def test_extent_sets_the_spacing(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "--subjects", "1", "--scans", "1", "--extent", "16", "32", "40") == 0
        image = nib.load(tmp_path / "c/images/sub-001_scan-1.nii.gz")
        assert image.header.get_zooms() == pytest.approx((1, 2, 1.25))

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (("--subjects", "5", "--scans", "4"), "--scans: found 4 for 5 subjects"),
            (("--subjects", "0"), "--subjects: found 0"),
            (("--subjects", "10", "--split", "2", "1", "1"), "--split: found 4 in all; expected 10"),
            (("--scans", "9", "--split-scans", "44", "2", "23"), "--split-scans: found 69 in all; expected 9"),
            (("--split", "0", "1", "1"), "training"),
            (("--split", "2", "1", "1", "--split-scans", "1", "1", "1"), "1 scans for 2 subjects in training"),
            (("--split", "2", "0", "1", "--split-scans", "2", "1", "1"), "1 scans for 0 subjects in validation"),
            (("--shape", "16", "16", "31"), "--shape: found 16 16 31; expected at least 16 16 32"),
            (("--extent", "0", "25", "38"), "--extent: found 0 25 38 mm"),
            (("--extent", "nan", "25", "38"), "--extent"),
            (("--dynamic-range", "60", "40"), "--dynamic-range: found 60 40 dB"),
            (("--seed", "-1"), "--seed: found -1"),
            (("--workers", "0"), "--workers: found 0"),
        ],
    )
    def test_refusals(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], words: str
    ) -> None:
        assert self.run(tmp_path, *argv) == 2
        message = capsys.readouterr().err
        assert words in message
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        assert not (tmp_path / "c").exists()

    def test_out_is_a_file_or_below_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "c").touch()
        assert self.run(tmp_path) == 2
        assert "found a file; expected a folder" in capsys.readouterr().err
        assert main(["simulate", "--out", str(tmp_path / "c" / "below")]) == 2
        assert "cannot be written to" in capsys.readouterr().err

    def test_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["simulate"])
        assert stop.value.code == 2
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert stop.value.code == 0
        printed = capsys.readouterr().out
        assert all(command in printed for command in ("simulate", "split", "check", "Exit codes"))

    def test_simulating_needs_no_torch(self) -> None:
        # Workers would each spend seconds and memory on it.
        code = "import sys; import data_prep.simulate.cohort; print('torch' in sys.modules)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "False"
