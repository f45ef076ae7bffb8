from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grn_monai.cli import main
from tests.metrics.test_folders import folders
from tests.report.conftest import _run_template, run_dir

__all__ = ["_run_template", "folders", "run_dir"]  # fixtures of the tests below


def test_evaluate(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", str(folders[0]), str(folders[1]), "--out", str(out), "--slices"]) == 0
    scores = json.loads((out / "metrics.json").read_text())
    printed = capsys.readouterr().out
    assert f"decoded: mean Dice {scores['decoded']['mean']:.3f}" in printed
    assert "3 scans scored" in printed
    assert scores["slice"]["n"] == 3 * (14 + 12)


def test_evaluate_lists_failures(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "a_2_seg.nii.gz").write_text("damaged")
    assert main(["evaluate", str(folders[0]), str(folders[1]), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "2 scans scored" in captured.out
    assert "1 scan failed" in captured.err
    assert "a_2_seg.nii.gz" in captured.err


def test_report(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_dir), "--out", str(tmp_path / "r"), "--scans", "0"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r/report.html")
    assert json.loads((tmp_path / "r/report.json").read_text())["methods"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "{}/nowhere"],
        ["evaluate", "{}/nowhere", "{}", "--out", "{}/out"],
        ["evaluate", "{}", "{}/nowhere", "--out", "{}/out"],
        ["report", "{}"],
    ],
)
def test_bad_input_is_one_line(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("grn-monai: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["measure-all"], ["report"], ["evaluate", "a", "b"], ["report", "x", "--scans", "9"]]
)
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: grn-monai" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["evaluate"], ["report"], ["study"]])
def test_help_teaches_without_heavy_imports(command: list[str]) -> None:
    code = (
        "import sys\nfrom grn_monai.cli import main\n"
        f"try:\n    main({[*command, '--help']!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'monai', 'matplotlib', 'scipy', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "exit status" in done.stdout
    assert "grn-monai" in done.stdout
    if command:
        assert "examples:" in done.stdout
