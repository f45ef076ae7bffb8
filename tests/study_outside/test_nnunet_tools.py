from __future__ import annotations

import json
from pathlib import Path

import pytest

from grn_monai.errors import InputError
from grn_monai.study.outside import nnunet_tools
from grn_monai.study.outside.nnunet_tools import Settings, add_small, find_nnunet, nnunet_versions, stage_commands


def plans(tmp_path: Path, patch: list[int], strides: list[list[int]], batch: int = 14) -> Path:
    arch = {"strides": strides, "features_per_stage": [32, 64, 128][: len(strides)]}
    planned = {"batch_size": batch, "patch_size": patch, "architecture": {"arch_kwargs": arch}}
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": {"2d": planned, "3d_fullres": planned}}))
    return file


@pytest.mark.parametrize(
    ("configuration", "patch", "strides", "expected"),
    [
        ("2d", [192, 96], [[1, 1], [2, 2], [2, 2]], [192, 96]),  # already below 256
        ("2d", [512, 448], [[1, 1], [2, 2], [4, 2]], [256, 256]),
        ("2d", [480, 320], [[1, 1], [3, 3], [16, 1]], [240, 255]),  # 256 rounded down to multiples of 48 and of 3
        ("3d_fullres", [96, 192, 96], [[1, 1, 1], [2, 2, 2], [2, 2, 1]], [64, 64, 64]),
        # Two voxels stay at the bottom.
        ("3d_fullres", [128, 128, 128], [[1, 1, 1], [8, 8, 8], [8, 4, 4]], [128, 64, 64]),
    ],
)
def test_small_patch(
    tmp_path: Path, configuration: str, patch: list[int], strides: list[list[int]], expected: list[int]
) -> None:
    file = plans(tmp_path, patch, strides)
    small = add_small(file, configuration)
    assert small["patch_size"] == expected
    assert json.loads(file.read_text())["configurations"][f"{configuration}_small"] == small


def test_small_network_and_batch(tmp_path: Path) -> None:
    file = plans(tmp_path, [192, 96], [[1, 1], [2, 2], [2, 2]])
    before = json.loads(file.read_text())
    small = add_small(file, "2d")
    assert small["batch_size"] == 4
    assert small["inherits_from"] == "2d"
    assert small["architecture"]["arch_kwargs"]["features_per_stage"] == [16, 32, 64]
    assert small["architecture"]["arch_kwargs"]["strides"] == [[1, 1], [2, 2], [2, 2]]
    after = json.loads(file.read_text())
    assert after["configurations"].pop("2d_small") == small
    assert after == before  # what nnU-Net planned is as it was
    assert add_small(plans(tmp_path, [192, 96], [[1, 1]], batch=2), "2d")["batch_size"] == 2


def test_configuration_that_was_not_planned(tmp_path: Path) -> None:
    file = plans(tmp_path, [192, 96], [[1, 1]])
    file.write_text(json.dumps({"configurations": {"3d_fullres": {}}}))
    with pytest.raises(InputError, match="no configuration '2d'; expected 3d_fullres"):
        add_small(file, "2d")


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        (Settings(1.0), "nnU-Net 2d"),
        (Settings(0.05, 1, "3d_fullres"), "nnU-Net 3d_fullres"),
        (Settings(0.05, epochs=100), "nnU-Net 2d, 10 % of its iterations"),
        (Settings(0.05, preset="small", epochs=12, iterations=50), "nnU-Net 2d, small, 0.24 % of its iterations"),
    ],
)
def test_title_says_what_is_not_its_own(settings: Settings, title: str) -> None:
    assert settings.title == title


def test_nnunet_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(nnunet_tools, "ENVIRONMENT", ".venv-of-a-test")
    with pytest.raises(InputError, match="make setup-nnunet"):
        find_nnunet()
    for place in ("path", "environment/bin", ".venv-of-a-test/bin"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "nnUNetv2_train").touch(mode=0o755)
        expected = tmp_path / place
        assert find_nnunet(tmp_path / "environment" if "environment" in place else None) == expected.resolve()
    with pytest.raises(InputError, match="found no nnU-Net"):  # a folder that is named is not passed over
        find_nnunet(tmp_path / "elsewhere")


def test_versions_without_python(tmp_path: Path) -> None:
    assert nnunet_versions(tmp_path) == {}


def test_commands(tmp_path: Path) -> None:
    settings = Settings(0.05, 3, preset="small", epochs=7, iterations=9)
    commands = stage_commands(tmp_path, settings, Path("/nn/bin"), "cpu", threads=2, workers=1)
    assert list(commands) == ["plan", "training", "predict_test", "predict_validation"]
    train = commands["training"].line
    assert train[0] == "env"
    assert {"GRN_NNUNET_EPOCHS=7", "GRN_NNUNET_ITERATIONS=9", "GRN_NNUNET_SEED=3", "GRN_NNUNET_THREADS=2"} <= {*train}
    assert "GRN_NNUNET_MIRRORING=0" in train
    own = list(train[train.index("/nn/bin/nnUNetv2_train") + 1 :])
    assert own == ["1", "2d_small", "0", "-tr", "nnUNetTrainerStudy", "-device", "cpu"]

    fold = tmp_path / "nnUNet_results/Dataset001_Study/nnUNetTrainerStudy__nnUNetPlans__2d_small/fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    assert stage_commands(tmp_path, settings, Path("/nn/bin"), "cpu", 2, 1)["training"].line[-1] == "--c"
    planned = stage_commands(tmp_path, Settings(1.0), Path("/nn/bin"), "cuda", 1, 1)["training"].line
    assert "--c" not in planned  # another configuration's checkpoint
    assert "GRN_NNUNET_MIRRORING=1" in planned
    assert not any(part.startswith("GRN_NNUNET_THREADS") for part in planned)
