"""`make demo`, in a small size: every step, and what it leaves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ["EPOCHS=1", "SLICE=32", "BASE=4", "FRACTION=0.5", "WORKERS=1"]
SIMULATE = "SIMULATE=--subjects 4 --scans 4 --split 2 1 1 --split-scans 2 1 1 --shape 20 16 40"


def demo(*options: str) -> str:
    done = subprocess.run(["make", "demo", *SMALL, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_demo_reports_every_method_and_runs_on_an_own_cohort(tmp_path: Path) -> None:
    tmp_path = tmp_path / "a study"
    demo(f"OUT={tmp_path / 'demo'}", SIMULATE, "METHODS=all")
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    joint = ("grn_plus", "grn_sel", "grn_ssl")
    assert set(report["methods"]) == {"unet", *joint, *(f"{name}_sge" for name in joint)}
    for method in report["methods"].values():
        for kind in ("slice", "volume", "decoded"):
            assert len(method[kind]["dice"]) == 6
            assert 0 <= method[kind]["mean"] <= 1
            assert {"ci", "n"} <= set(method[kind])
    assert report["simulated"] is True
    html = (tmp_path / "demo" / "report.html").read_text()
    assert 'src="http' not in html
    assert "data:image/png;base64" in html
    measured = json.loads((tmp_path / "demo" / "measured" / "measurements.json").read_text())
    assert [scan["scan"] for scan in measured["scans"]] == ["sub-004_scan-1"]
    levels = {flag["name"]: flag["level"] for flag in measured["scans"][0]["quality"]["flags"]}
    # Inference told how planes, and S(x) and S(G(x)), agree.
    assert {levels[name] for name in ("plane_disagreement", "sge_disagreement", "out_of_order")} <= {"ok", "check"}
    assert (tmp_path / "demo" / "measured" / "report.html").stat().st_size > 50_000

    # The own cohort lies where another demo put it, and the settings differ: it must not be touched.
    before = sorted(p.name for p in (tmp_path / "demo" / "cohort").rglob("*"))
    out = demo(f"OUT={tmp_path / 'demo'}", f"COHORT={tmp_path / 'demo' / 'cohort'}", "SEED=1")
    assert set(json.loads((tmp_path / "demo" / "report.json").read_text())["methods"]) == {
        "unet", "grn_plus", "grn_plus_sge"}  # fmt: skip
    assert "data_prep simulate" not in out
    assert sorted(p.name for p in (tmp_path / "demo" / "cohort").rglob("*")) == before
    assert json.loads((tmp_path / "demo" / "unet" / "run.json").read_text())["seed"] == 1


def test_unknown_methods_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    done = subprocess.run(
        ["tools/demo.sh"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "OUT": str(tmp_path / "out"), "METHODS": "both"},
    )
    assert done.returncode == 2
    assert "METHODS has to be default or all, not both" in done.stderr
    assert not (tmp_path / "out").exists()
