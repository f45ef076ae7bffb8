from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.cli import main
from grn_monai.errors import InputError
from grn_monai.report.study.build import build_study_report
from tests.report.study.made import constant, write_evaluation, write_study, write_training

METHODS: dict[str, dict[str, Any]] = {
    "unet": {"title": "U-Net", "bundle": "us_layers_supervised"},
    "evil": {"title": "<b>R&D_1|</b> 100 %", "bundle": "us_layers_semi"},
    "plus": {"title": "GRN+", "bundle": "us_layers_grn_plus", "modes": ["raw", "sge"]},
    "late": {"title": "Late", "bundle": "us_layers_semi"},
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    dice = constant(0.5)
    dice[::3] += 0.2
    scores = {
        ("unet", 0.05, 0, "test_raw"): dice,
        ("unet", 1.0, 0, "test_raw"): constant(0.8),
        ("evil", 0.05, 0, "test_raw"): dice + 0.05,
        ("plus", 0.05, 0, "test_raw"): dice + 0.1,
        ("plus", 0.05, 0, "test_sge"): np.clip(dice * 1.3, 0, 1),
    }
    folder = write_study(tmp_path / "study", METHODS, scores)
    failed = folder / "runs/late/5pct/seed_0"
    failed.mkdir(parents=True)
    error = f"OSError: cannot read\n  {folder.resolve()}/cache/x.npy or /home/somebody/secret/scan.nii.gz"
    (failed / "status.json").write_text(json.dumps({"state": "failed", "stage": "training", "error": error}))
    return folder


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        self.links += [values["href"]] if values.get("href") else []

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_report_of_a_study_that_is_half_done(study: Path) -> None:
    page = build_study_report(study, figures=False)
    assert page == study / "report/report.html"
    content = json.loads((study / "report/report.json").read_text())
    assert content["state"] == "8 trainings: 4 done, 1 failed, 3 missing. The study is not complete."
    unet = next(s for s in content["scores"] if (s["method"], s["fraction"]) == ("unet", 0.05))
    # Every third of twelve slices has 70, the others 50.
    assert unet["dice"]["overall"]["mean"] == pytest.approx((4 * 0.7 + 8 * 0.5) / 12)
    table = content["tables"]["layers_5pct"]
    assert table["rows"][0]["cells"][0]["value"] == pytest.approx(56.6667, abs=1e-3)
    late = next(r for r in content["runs"] if (r["method"], r["fraction"]) == ("late", 0.05))
    assert late["state"] == "failed"
    assert late["reason"] == "failed at training: OSError: cannot read STUDY/cache/x.npy or scan.nii.gz"
    for text in (page.read_text(), (study / "report/report.md").read_text()):
        assert "Late at 5 %, seed 0: failed at training" in text
        assert "Simulated cohort" in text
        assert "0123456789ab" in text  # the commit of the trainings


def test_no_report_says_where_it_was_made(study: Path) -> None:
    build_study_report(study, figures=False)
    for file in (study / "report").rglob("*.*"):
        text = file.read_text()
        assert str(study.resolve()) not in text, file
        assert "somebody" not in text, file


def test_every_table_has_three_files_and_a_place(study: Path) -> None:
    page = build_study_report(study, figures=False)
    content = json.loads((study / "report/report.json").read_text())
    keys = set(content["tables"])
    assert {"layers_5pct", "labels_grn", "labels_semi", "effects", "tests_5pct", "volumes_5pct", "runs"} <= keys
    files = {path.name for path in (study / "report/tables").iterdir()}
    assert files == {f"{key}.{ending}" for key in keys for ending in ("csv", "tex", "md")}
    html, markdown = page.read_text(), (study / "report/report.md").read_text()
    for key, table in content["tables"].items():
        assert (study / f"report/tables/{key}.md").read_text() in markdown
        assert key == "runs" or table["title"] in html
        with open(study / f"report/tables/{key}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(table["rows"])
        for row, expected in zip(rows, table["rows"], strict=True):
            for column, cell in zip(table["columns"], expected["cells"], strict=True):
                if cell["value"] is not None:
                    assert float(row[column]) == pytest.approx(cell["value"], rel=1e-5)


def test_the_page_is_one_file_whose_links_and_texts_are_sound(study: Path) -> None:
    page = _Page()
    text = build_study_report(study, figures=False).read_text()
    page.feed(text)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert "b" not in [tag for tag in page.tags if tag == "b"][1:]  # the one of the note, none of the title
    assert "<b>R&D_1|</b> 100 %" in "".join(page.text)
    assert not re.search(r"(src|href)=\"(https?:)?//", text)


def test_no_nan_and_no_python_names_reach_a_reader(study: Path) -> None:
    build_study_report(study, figures=False)
    for file in (study / "report").rglob("*.*"):
        if file.suffix != ".json":
            assert not re.search(r"\bnan\b|\bNone\b|\binf\b|np\.float", file.read_text()), file


def test_a_table_that_is_gone_is_removed_with_the_next_report(study: Path) -> None:
    build_study_report(study, figures=False)
    own = study / "report/tables/notes_of_mine.csv"
    own.write_text("a\n")
    plan = json.loads((study / "study.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if run["method"] in ("unet", "plus")]
    plan["methods"] = {key: plan["methods"][key] for key in ("unet", "plus")}
    (study / "study.json").write_text(json.dumps(plan))
    build_study_report(study, figures=False)
    assert not (study / "report/tables/labels_semi.csv").exists()
    assert (study / "report/tables/labels_grn.csv").exists()
    assert own.exists()


def test_several_commits_are_said(study: Path) -> None:
    write_training(study / "runs/unet/5pct/seed_0", 0, git={"commit": "fedcba9876543210", "changed_files": 2})
    build_study_report(study, figures=False)
    problems = json.loads((study / "report/report.json").read_text())["problems"]
    (line,) = [problem for problem in problems if "states of the source" in problem]
    assert "fedcba987654 with 2 changed files" in line
    assert "0123456789ab" in line


def test_the_same_study_gives_the_same_numbers(study: Path, tmp_path: Path) -> None:
    reports = []
    for name in ("a", "b"):
        build_study_report(study, tmp_path / name, figures=False)
        content = json.loads((tmp_path / name / "report.json").read_text())
        content.pop("provenance")
        reports.append(content)
    assert reports[0] == reports[1]


@pytest.mark.parametrize("margin", [0, -0.01, 1])
def test_a_margin_out_of_range_is_refused(study: Path, margin: float) -> None:
    with pytest.raises(InputError, match="margin"):
        build_study_report(study, margin=margin)


def test_command(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["report", str(study), "--out", str(out), "--no-figures", "--margin", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    assert json.loads((out / "report.json").read_text())["margin"] == 0.02
    plan = tmp_path / "plan.yaml"
    plan.write_text("name: study\noutput: study\nmethods: {}\n")
    assert main(["report", str(plan), "--out", str(tmp_path / "other"), "--no-figures"]) == 0
    assert (tmp_path / "other/report.md").is_file()


def test_options_of_other_kinds_and_studies_not_started_are_one_line(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(study), "--slices", "3"]) == 2
    assert "a study, with --slices" in capsys.readouterr().err
    plan = tmp_path / "plan.yaml"
    plan.write_text("name: nothing\noutput: nothing\nmethods: {}\n")
    assert main(["report", str(plan)]) == 2
    error = capsys.readouterr().err
    assert "Run `grn-monai study` first" in error
    assert error.count("\n") == 1


def test_an_outside_run_with_fused_volumes_only_and_hostile_titles(study: Path) -> None:
    place = study / "outside/nnunet/5pct/seed_0"
    write_evaluation(place / "evaluation/test_raw", constant(0.9))
    scans = place / "evaluation/test_raw/scans.csv"
    scans.write_text("".join(line for line in scans.read_text().splitlines(True) if ",decoded," not in line))
    write_training(place, 0, title="=HYPERLINK(1)\nsecond line")
    build_study_report(study, figures=False)
    volumes = json.loads((study / "report/report.json").read_text())["tables"]["volumes_5pct"]
    cells = next(r["cells"] for r in volumes["rows"] if r["name"].startswith("=HYPERLINK"))
    assert cells[0]["value"] == pytest.approx(90)
    assert cells[1]["value"] is None
    for file in (study / "report/tables").iterdir():
        text = file.read_text()
        assert not re.search(r"(^|,)\"?=", text, flags=re.M) or file.suffix != ".csv", file
        assert "Simulated cohort." in text, file
    assert "\nsecond line" not in (study / "report/report.md").read_text()


def test_sections_are_all_in_the_scores(tmp_path: Path) -> None:
    scores = {("unet", 0.05, 0, f"{section}_raw"): constant(0.5) for section in ("test", "training")}
    folder = write_study(tmp_path / "s", METHODS, scores, sections=["test", "training"])
    build_study_report(folder, figures=False)
    content = json.loads((folder / "report/report.json").read_text())
    assert {row["section"] for row in content["scores"]} == {"test", "training"}
