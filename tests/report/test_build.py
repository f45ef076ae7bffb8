from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from grn_monai.errors import InputError
from grn_monai.metrics.files import read_rows
from grn_monai.report import build_report

_VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects the text, images and outside references."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        found = {name: value or "" for name, value in attrs}
        if tag == "img":
            self.images.append(found["src"])
        if "id" in found:
            self.ids.append(found["id"])
        for name in ("src", "href", "xlink:href"):
            if name in found and not found[name].startswith(("#", "data:")):
                self.outside.append(found[name])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_whole_and_self_contained(run_dir: Path) -> None:
    path = build_report(run_dir)
    page = Page(path.read_text(encoding="utf-8"))
    assert path == run_dir / "report.html"
    assert page.open == []
    assert page.outside == []
    assert "@import" not in path.read_text()
    # three scans × two planes × (scan, truth, enhanced, three predictions, three error maps), all inline
    pictures = [source for source in page.images if source.startswith("data:image/png;base64,")]
    assert len(pictures) == 3 * 2 * 9
    assert len(set(pictures)) == len(pictures)
    for words in ("Simulated cohort", "research use", "GRN+ with SGE", "lowest Dice", "Validation Dice loss", "5 mm"):
        assert words in page.text or words in path.read_text()
    assert "Notes" not in page.text


def test_report_json_repeats_the_metrics(run_dir: Path) -> None:
    build_report(run_dir, scans=0)
    report = json.loads((run_dir / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["simulated"] is True
    assert list(report["methods"]) == ["unet", "grn_plus", "grn_plus_sge"]
    for name, scores in report["methods"].items():
        metrics = json.loads((run_dir / f"evaluation/{name}/metrics.json").read_text())
        for kind in ("slice", "volume", "decoded", "sagittal", "transverse"):
            assert scores[kind] == metrics[kind]
    assert report["provenance"]["runs"]["unet"]["seed"] == 7
    assert report["provenance"]["cohort"]["scans"]["test"] == 4


def test_paired_difference_to_the_first(run_dir: Path) -> None:
    build_report(run_dir, scans=0)
    methods = json.loads((run_dir / "report.json").read_text())["methods"]
    assert methods["unet"]["difference_to_first"] == {}
    for name in ("grn_plus", "grn_plus_sge"):
        change = methods[name]["difference_to_first"]
        for kind in ("slice", "decoded"):
            expected = methods[name][kind]["mean"] - methods["unet"][kind]["mean"]
            assert change[kind]["mean"] == pytest.approx(expected, abs=1e-5)
            assert change[kind]["subject_ci"][0] <= expected <= change[kind]["subject_ci"][1]
    assert methods["grn_plus"]["difference_to_first"]["slice"]["n"] == 4 * (12 + 10)
    first, second = (
        {tuple(r[k] for k in ("scan", "plane", "index")): float(r["dice_mean"]) for r in read_rows(path)}
        for path in (run_dir / "evaluation/unet/slices.csv", run_dir / "evaluation/grn_plus/slices.csv")
    )
    by_hand = np.array([second[key] - first[key] for key in first])
    half = 1.96 * by_hand.std(ddof=1) / np.sqrt(by_hand.size)
    low, high = methods["grn_plus"]["difference_to_first"]["slice"]["ci"]
    assert (high - low) / 2 == pytest.approx(half)


def test_only_shared_scans_are_paired(run_dir: Path) -> None:
    path = run_dir / "evaluation/grn_plus/slices.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("c,")))
    build_report(run_dir, scans=0)
    methods = json.loads((run_dir / "report.json").read_text())["methods"]
    assert methods["grn_plus"]["difference_to_first"]["slice"]["n"] == 3 * (12 + 10)


@pytest.mark.parametrize(
    "gone",
    [
        {"evaluation/grn_plus": None, "grn_plus": None, "evaluation/grn_plus_sge": None},
        {"evaluation/grn_plus/metrics.json": "is left out", "unet/history.csv": "no training curves"},
        {"evaluation/grn_plus/slices.csv": "slices.csv is missing", "unet/run.json": "run.json is missing"},
        {"evaluation/grn_plus/scans.csv": "scans.csv is missing", "cohort": "is not known"},
        {"evaluation/unet/predictions": "no label volume of scan", "cohort/labels/b_1.nii.gz": "Scan b_1: Truth"},
        {"cohort/images/b_1.nii.gz": "Scan b_1 is not shown"},
    ],
    ids=lambda gone: next(iter(gone)),
)
def test_missing_parts_become_notes(run_dir: Path, gone: dict[str, str | None]) -> None:
    for name in gone:
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if any("b_1" in name for name in gone):
        (run_dir / "report.yaml").write_text("scans: [b_1]")
    page = Page(build_report(run_dir, scans=0).read_text())
    assert page.open == []
    assert "U-Net" in page.text
    assert [note for note in gone.values() if note and note not in page.text] == []


@pytest.mark.parametrize(
    "damaged",
    [
        {
            "evaluation/unet/slices.csv": ("a,b\n1,2\n", "slices.csv has no column"),
            "evaluation/grn_plus/scans.csv": ("subject,scan,kind\na,1,volume\n", "no column dice, layer"),
            "unet/history.csv": ("epoch,train_loss\n1,not a number\n", "U-Net"),
            "unet/run.json": ("{", "could not be read"),
            "cohort/dataset.json": ("{", "no valid JSON"),
        },
        {
            "evaluation/grn_plus/metrics.json": ('{"slice": 3}', "is left out"),
            "evaluation/unet/predictions/a_1_seg.nii.gz": ("no volume", "U-Net: "),
            "evaluation/grn_plus_sge/predictions/a_1_enhanced.nii.gz": ("no volume", "GRN+ with SGE: "),
        },
    ],
    ids=["tables", "volumes"],
)
def test_damaged_parts_become_notes(run_dir: Path, damaged: dict[str, tuple[str, str]]) -> None:
    for name, (content, _) in damaged.items():
        (run_dir / name).write_text(content)
    if any("a_1" in name for name in damaged):
        (run_dir / "report.yaml").write_text("scans: [a_1]")
    page = Page(build_report(run_dir, scans=0).read_text())
    assert page.open == []
    assert [note for _, note in damaged.values() if note not in page.text] == []


def test_cohort_unknown_is_not_called_real(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "cohort")
    page = Page(build_report(run_dir).read_text())
    assert json.loads((run_dir / "report.json").read_text())["simulated"] is None
    assert "cannot say whether the scans are simulated" in page.text
    assert page.images == []


def test_options_file(run_dir: Path) -> None:
    (run_dir / "report.yaml").write_text(
        "title: Ours & <theirs>\nmethods: {grn_plus: Ours, unet: Theirs}\nscans: [b_1]\ncohort: cohort/dataset.json\n"
    )
    html = build_report(run_dir).read_text()
    page = Page(html)
    assert "Ours & <theirs>" in page.text
    assert "<theirs>" not in html
    assert len(page.images) == 2 * 6  # without an enhanced scan: scan, truth, two predictions, two error maps
    assert "Scan b_1" in page.text
    report = json.loads((run_dir / "report.json").read_text())
    assert list(report["methods"]) == ["grn_plus", "unet"]
    assert report["methods"]["unet"]["difference_to_first"]["decoded"]["mean"] < 0


def test_unknown_methods_and_one_method(run_dir: Path) -> None:
    (run_dir / "evaluation/unet").rename(run_dir / "evaluation/my_net")
    shutil.rmtree(run_dir / "evaluation/grn_plus")
    shutil.rmtree(run_dir / "evaluation/grn_plus_sge")
    page = Page(build_report(run_dir, scans=1).read_text())
    assert "my_net" in page.text
    assert "median Dice" in page.text
    assert "reference" not in page.text  # no second method, no column of differences


def test_bad_input(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        build_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no such file"):
        build_report(run_dir, cohort=tmp_path / "nowhere")
    (run_dir / "report.yaml").write_text("titel: x\n")
    with pytest.raises(InputError, match="titel"):
        build_report(run_dir)
    shutil.rmtree(run_dir / "evaluation")
    (run_dir / "report.yaml").unlink()
    with pytest.raises(InputError, match="no evaluation"):
        build_report(run_dir)


def test_out_dir_and_determinism(run_dir: Path, tmp_path: Path) -> None:
    """The same folder gives the same figures, tables and intervals; only time and source state may differ."""
    texts = []
    for name in ("one", "two"):
        html = build_report(run_dir, out_dir=tmp_path / name, scans=1).read_text()
        texts.append(html[: html.index('<section id="provenance"')])
    assert texts[0] == texts[1]
    assert not (run_dir / "report.html").exists()


def test_ids_are_unique_where_they_are_linked(run_dir: Path) -> None:
    html = build_report(run_dir, scans=2).read_text()
    targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', html))
    ids = Page(html).ids
    assert targets <= set(ids)
    assert [name for name in targets if ids.count(name) > 1] == []
