"""Plans over bundles whose commands are pretended, and over the real ones with a tiny cohort."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from grn_monai.study import Plan, load_plan
from grn_monai.study.board import Board

ROOT = Path(__file__).parents[2]

TRAIN = """
imports: [$import torch]
dataset_dir: cohort
split: dataset.json
output_dir: out
cache_dir: null
fraction: 1.0
seed: 0
epochs: 4
patience: 2
val_interval: 1
device: cpu
width: 8
amp: false
computed: $1 / 30
network_def: {_target_: UNet, channels: [8, 16], dropout: 0.0}
train: {trainer: {_target_: Plain, max_epochs: '@epochs'}}
run: '@training'
"""
EVALUATE = "section: test\neval_dir: null\nsurface_distances: true\ninfer_batch_size: 8\n"


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Two bundles, with and without a generator, of few ids."""
    configs: dict[str, dict[str, str]] = {
        "plain": {
            "network_big": '"network_def#channels": [16, 32]\nbig: 1\n',
            "augment": 'augment_prob: 0.5\n"train#extra": [1, 2]\n"train#more": [$@train#extra]\n'
            '"+imports": [$import os]\n',
        },
        "grn": {"no_sge": "sge: false\n"},
    }
    for name, overlays in configs.items():
        for config, text in {"train": TRAIN, "evaluate": EVALUATE, **overlays}.items():
            file = tmp_path / "bundles" / name / "configs" / f"{config}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return tmp_path / "bundles"


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A cohort of empty files."""
    folder = tmp_path / "cohort"
    (folder / "images").mkdir(parents=True)
    sections = {}
    for section in ("training", "validation", "test"):
        (folder / "images" / f"{section}.nii.gz").write_bytes(b"1")
        sections[section] = [{"image": f"images/{section}.nii.gz", "scan": section}]
    (folder / "dataset.json").write_text(json.dumps(sections))
    return folder


def content(**changes: Any) -> dict[str, Any]:
    """A plan of two methods; `None` takes a key out."""
    plan: dict[str, Any] = {
        "name": "try",
        "cohort": "cohort",
        "bundles": "bundles",
        "output": "out",
        "options": {"width": 16},
        "seeds": [0, 1],
        "fractions": {0.05: {"epochs": 3}, 1.0: {"epochs": 2}},
        "methods": {"a": {"bundle": "plain"}, "b": {"bundle": "grn"}},
        **changes,
    }
    return {key: value for key, value in plan.items() if value is not None}


Make = Callable[..., Plan]


@pytest.fixture
def make(tmp_path: Path, bundles: Path, cohort: Path) -> Make:
    """Write a plan and load it."""

    def load(**changes: Any) -> Plan:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(content(**changes)))
        return load_plan(file)

    return load


def write_run(plan: Plan, run: Any, reached: int | None = None, status: str = "completed", **config: Any) -> Path:
    """What a bundle's training leaves, as far as the runner reads it."""
    folder = plan.folder(run)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "model.pt").write_bytes(b"weights")
    values = {
        k: v for k, v in run.method.bundle.values(run.method.configs()).items() if "#" not in k and k[0] not in "+~"
    }
    values |= {"dataset_dir": str(plan.cohort), "fraction": run.fraction, "seed": run.seed, **run.options, **config}
    record = {"status": status, "epochs": reached or run.epochs, "seconds": 60.0, "config": values}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def write_evaluation(plan: Plan, run: Any, section: str, mode: str, **changes: Any) -> Path:
    """What a bundle's evaluation leaves."""
    folder = plan.evaluation(run, section, mode)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text("{}")
    record = {"status": "completed", "seconds": 30.0, "config": {"section": section, **run.options}, **changes}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def board() -> Callable[[Plan], Board]:
    """A board that writes into a text."""
    return lambda plan: Board(plan, io.StringIO())
