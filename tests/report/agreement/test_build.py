from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grn_monai.cli import main
from grn_monai.report.agreement import build_agreement_report
from tests.report.agreement.runs import MUSCLES, random_rows, row, write


def runs(tmp_path: Path) -> list[str]:
    """Two models; the second misses a muscle of s1 and lacks s5."""
    rows = random_rows(1, 6, 0.02, s1={"dice": 0.0, "hd95_mm": float("inf"), "volume_ml": 0.0})
    b = write(tmp_path / "b", [r for r in rows if r[0] != "s5"])
    return [f"depth=4:{write(tmp_path / 'a', random_rows(0))}", f"depth=5:{b}"]


def test_the_whole_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["agreement", *runs(tmp_path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "agreement.html")
    content = json.loads((out / "agreement.json").read_text(), parse_constant=pytest.fail)
    assert sorted(content["files"]) == sorted(
        str(p.relative_to(out)) for folder in ("tables", "figures") for p in (out / folder).iterdir()
    )
    for name in ("bland-altman-1-depth-4", "correlation-2-depth-5", "qq-dice"):
        assert np.asarray(Image.open(out / f"figures/{name}.png").convert("L")).std() > 5
    html, text = (out / "agreement.html").read_text(), (out / "agreement.md").read_text()
    for page in (html, text):
        for word in ("ICC(2,1)", "Mauchly", "Bland–Altman", "Left out of the analysis of variance: s5 ("):
            assert word in page.replace("\\", "")
        assert "depth 5: no predicted psoas left in s1." in page
        assert not re.search(r"\bnan\b", page.split("What the numbers mean")[0])
    assert 'src="data:image/png;base64,' in html
    assert "http" not in html.replace("http-equiv", "")
    for link in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (out / link).is_file()


def test_the_cells_of_a_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_agreement_report(runs(tmp_path), out, figures=False)
    with (out / "tables/scores-2-depth-5.csv").open() as file:
        rows = {line["muscle"]: line for line in csv.DictReader(file)}
    assert list(rows) == [*MUSCLES, "all muscles"]
    dice = np.array([r[3] for r in random_rows(1, 5, 0.02, s1={"dice": 0.0})]).reshape(5, 3)
    left = rows["psoas left"]
    assert left["Dice"] == f"{dice[:, 0].mean():.3f} ({dice[:, 0].std(ddof=1):.3f})"
    assert float(left["Dice: mean"]) == pytest.approx(dice[:, 0].mean(), rel=1e-5)
    assert (left["Dice: n"], left["Conformity: n"], left["Conformity: undefined"]) == ("5", "4", "1")
    assert left["HD95 (mm): infinite"] == "1"
    assert float(rows["all muscles"]["Dice: sd"]) == pytest.approx(dice.mean(axis=1).std(ddof=1), rel=1e-4)
    assert r"\toprule" in (out / "tables/scores-2-depth-5.tex").read_text()
    assert "1 undefined" in (out / "tables/scores-2-depth-5.md").read_text()
    compare = (out / "tables/compare-dice.md").read_text()
    assert compare.count("**") == 2 * 4  # the best of each column
    assert not (out / "figures").exists()


def test_one_model_of_two_subjects(tmp_path: Path) -> None:
    """Too few for anything but means: each statistic says so, and no cell is a bare NaN."""
    out = tmp_path / "out"
    build_agreement_report([str(write(tmp_path / "run", random_rows(0, 2)))], out)
    text = (out / "agreement.md").read_text()
    assert text.count("2 of 3 subjects needed") == 2 * len(MUSCLES)
    assert "No analysis of variance of Dice: 2 subjects with all cells, and 3 are needed." in text
    assert "nan" not in text
    assert not list(out.glob("tables/anova*"))


def test_what_an_earlier_report_left_goes(tmp_path: Path) -> None:
    out, both = tmp_path / "out", runs(tmp_path)
    build_agreement_report(both, out, figures=False)
    (out / "tables/mine.csv").write_text("kept")
    build_agreement_report(both[:1], out, figures=False)
    assert not (out / "tables/scores-2-depth-5.csv").exists()
    assert not (out / "tables/post-hoc-dice.csv").exists()
    assert (out / "tables/mine.csv").exists()


def test_names_are_escaped(tmp_path: Path) -> None:
    rows = [row(f"s<{i}>", m, 0.8 + 0.01 * i * k) for i in range(4) for k, m in enumerate(("<b>x</b>", "y|z"))]
    out = tmp_path / "out"
    build_agreement_report([f"net=<i>:{write(tmp_path / 'run', rows)}"], out, figures=False)
    html = (out / "agreement.html").read_text()
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "<b>x" not in html
    assert "<i>" not in html
    assert "| y\\|z |" in (out / "agreement.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: found no such folder; expected a folder that `grn-monai evaluate`"),
        (["x=1:run", "run"], "run: found the factors (none); expected those of the first run: x."),
        (["run", "run"], "psoas left of scan s0 of subject s0 a second time under one model (line 2)"),
        (["run", "--measure", "tnrr"], "measure: found 'tnrr'; expected one of dice, jaccard"),
        (["subject=1:run"], "found 'subject=1'; expected factors with a level each"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / "run", random_rows(0))
    monkeypatch.chdir(tmp_path)
    assert main(["agreement", *arguments, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_without_pingouin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", random_rows(0))
    monkeypatch.setitem(sys.modules, "pingouin", None)
    assert main(["agreement", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "grn-monai[scans]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
