"""Every committed result fits the table that the README makes of it, and the study's bookkeeping."""

from __future__ import annotations

import argparse
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods
from benchmarks.readme import PAGES, TABLES, source

NAMES = [name for name in TABLES if source(name).is_file()]


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_those_of_the_committed_results(name: str) -> None:
    table = TABLES[name](json.loads(source(name).read_text()))
    assert f"<!-- {name} -->\n{table}\n<!-- /{name} -->" in PAGES[name].read_text()


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    (tmp_path / "cohort").mkdir()
    options = {"cohort": tmp_path / "cohort", "fraction": 0.05, "epochs": 2, "size": 64, "seeds": [0], "device": "cpu",
               "threads": 1, "train_only": False}  # fmt: skip
    return argparse.Namespace(**options)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that the study would run; each leaves what it would leave."""
    made: list[list[str]] = []

    def pretend(line: list[str], bundle: str, log: Path, threads: int) -> None:
        made.append(line)
        value = dict(pairwise(line))
        if "training" in line:
            config: dict[str, Any] = {k.removeprefix("--"): v for k, v in value.items() if k.startswith("--")}
            config["slice_size"] = json.loads(config["slice_size"])
            record = {"status": "completed", "epochs": int(config["epochs"]), "iterations": 9, "seconds": 1.0}
            file, content = Path(config["output_dir"]) / "run.json", {**record, "config": config}
        else:
            scores = {kind: {"mean": 0.5, "dice": {}} for kind in methods.KINDS}
            file, content = Path(value["--eval_dir"]) / "metrics.json", scores
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        os.utime(file, (len(made), len(made)))

    monkeypatch.setattr(methods, "call", pretend)
    return made


def test_what_is_done_is_not_done_again(args: argparse.Namespace, calls: list, tmp_path: Path) -> None:
    run = methods.Run("grn_plus_joint", 0, tmp_path / "work")
    methods.work(run, args)
    assert len(calls) == 3  # training, S(x), S(G(x))
    methods.work(run, args)
    assert len(calls) == 3
    assert [(row["mode"], row["slice"]) for row in methods.rows([run], args)] == [("raw", 0.5), ("sge", 0.5)]


def test_a_longer_training_is_evaluated_anew(args: argparse.Namespace, calls: list, tmp_path: Path) -> None:
    run = methods.Run("unet", 0, tmp_path / "work")
    methods.work(run, args)
    args.epochs = 4
    assert list(methods.rows([run], args)) == []
    methods.work(run, args)
    assert ["training" in line for line in calls] == [True, False, True, False]


@pytest.mark.parametrize(("name", "value"), [("fraction", 0.5), ("size", 128)])
def test_runs_of_other_settings_are_refused(
    name: str, value: Any, args: argparse.Namespace, calls: list, tmp_path: Path
) -> None:
    run = methods.Run("unet", 0, tmp_path / "work")
    methods.work(run, args)
    setattr(args, name, value)
    with pytest.raises(RuntimeError, match="holds a run of other settings"):
        methods.work(run, args)
    assert list(methods.rows([run], args)) == []


def test_differences_are_paired_by_seed() -> None:
    table = [
        {"method": m, "mode": "raw", "seed": seed, **dict.fromkeys(methods.KINDS, value)}
        for m, seed, value in (
            ("unet", 0, 0.4),
            ("unet", 1, 0.6),
            ("grn_plus_joint", 1, 0.7),
            ("grn_plus_joint", 0, 0.6),
        )
    ]
    result = methods.summary(table)["grn_plus_joint/raw"]
    assert result["slice"]["mean"] == pytest.approx(0.65)
    assert result["minus_unet"]["slice"]["values"] == pytest.approx([0.1, 0.2])
    assert result["minus_unet"]["slice"]["sd"] == pytest.approx(0.0707, abs=1e-4)
