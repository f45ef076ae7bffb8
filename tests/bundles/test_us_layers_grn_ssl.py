"""The bundle contract for GRN-SSL, and what only it has: unlabelled images beside the labelled ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.split import write_split
from grn_monai.errors import InputError, find_input_error
from tests.bundles import test_us_layers_grn_sel as grn_sel
from tests.bundles.conftest import SMALL, run


class TestGRNSSL(grn_sel.TestGRNSEL):
    bundle = "us_layers_grn_ssl"
    curves = (
        "stage1_loss", "l1_loss", "grad_norm_generator", "grad_norm_segmentor", "unlabeled_loss_raw",
        "unlabeled_loss_sge", "unlabeled_stage1_loss", "unlabeled_adversarial_loss", "unlabeled_discriminator_loss",
        "unlabeled_l1_loss", "unlabeled_grad_norm_discriminator", "val_dice_loss", "val_dice_loss_sge",
    )  # fmt: skip

    def failure(self, cohort: Path, out: Path, **options: object) -> str:
        options = {**SMALL, **self.extra, **options}
        with pytest.raises(RuntimeError) as info:
            run(self.bundle, "train", dataset_dir=str(cohort), output_dir=str(out), **options)
        cause = find_input_error(info.value)
        assert isinstance(cause, InputError)
        return str(cause)

    def test_both_halves_and_no_common_subject(self, cohort: Path, tmp_path: Path) -> None:
        options = {**SMALL, **self.extra, "epochs": 1, "batch_size": 4, "unlabelled_batch_size": 2}
        flow = run(self.bundle, "train", dataset_dir=str(cohort), output_dir=str(tmp_path), **options)
        batch = flow.parser.get_parsed_content("train#trainer").state.batch
        assert batch["image"].shape == batch["label"].shape == (4, 1, 32, 32)
        assert batch["unlabeled"].shape == (2, 1, 32, 32)
        assert not set(batch["subject"]) & set(batch["unlabeled_subject"])
        record = json.loads((tmp_path / "run.json").read_text())
        assert len(record["scans"]) == len(record["unlabelled_scans"]) == 1
        assert record["scans"] != record["unlabelled_scans"]

    def test_streams_from_a_split_file(self, cohort: Path, tmp_path: Path) -> None:
        """`python -m data_prep split --fraction 0.5` chooses the same subjects as the option does."""
        file, _ = write_split(cohort, fraction=0.5, out=tmp_path / "half.json")
        subjects = []
        for number, options in enumerate(({"split": str(file), "fraction": 1.0}, {"fraction": 0.5})):
            out = str(tmp_path / str(number))
            options = {**SMALL, **self.extra, "epochs": 1, **options}
            flow = run(self.bundle, "train", dataset_dir=str(cohort), output_dir=out, **options)
            batch = flow.parser.get_parsed_content("train#trainer").state.batch
            subjects.append((set(batch["subject"]), set(batch["unlabeled_subject"])))
        assert subjects[0] == subjects[1]

    def test_an_epoch_over_the_unlabelled_images(self, cohort: Path, tmp_path: Path) -> None:
        options = {**SMALL, **self.extra, "epochs": 1, "batch_size": 8, "unlabelled_batch_size": 4}
        run(self.bundle, "train", dataset_dir=str(cohort), output_dir=str(tmp_path), epoch_over="unlabelled", **options)
        assert json.loads((tmp_path / "run.json").read_text())["iterations"] == (20 + 16) // 4

    def test_a_fraction_without_unlabelled_subjects(self, cohort: Path, tmp_path: Path) -> None:
        for fraction in (1.0, 0.99):
            text = self.failure(cohort, tmp_path, fraction=fraction)
            assert "unlabel" in text
            assert "fraction" in text

    def test_labelled_images_serve_as_unlabelled_ones_on_request(self, cohort: Path, tmp_path: Path) -> None:
        options = {**SMALL, **self.extra, "epochs": 1, "fraction": 1.0}
        assert "give `unlabelled: all`" in self.failure(cohort, tmp_path, **options)
        run(self.bundle, "train", dataset_dir=str(cohort), output_dir=str(tmp_path), unlabelled="all", **options)
        record = json.loads((tmp_path / "run.json").read_text())
        assert sorted(record["scans"]) == sorted(record["unlabelled_scans"])
        assert len(record["scans"]) == 2

    def test_an_unlabelled_batch_of_one(self, cohort: Path, tmp_path: Path) -> None:
        assert "at least 2 unlabelled images" in self.failure(cohort, tmp_path, unlabelled_batch_size=1)

    def test_a_batch_larger_than_the_stream(self, cohort: Path, tmp_path: Path) -> None:
        assert "the labelled stream: found 36 images" in self.failure(cohort, tmp_path, batch_size=40)
