from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.metrics import EnhancementMeasure
from grn_monai.report import Method, build_report
from grn_monai.report.enhancement import claims, enhancement_section, histogram_figure
from tests.metrics.layered import layered_truth
from tests.report.conftest import SHAPE, SPACING
from tests.report.test_build import Page
from tests.report.test_figures import texts

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a4944415478da6360000000020001e52702000000000049454e44ae426082"
)


def measured(folder: Path, subjects: str = "abc", labelled: bool = True, gain: float = 0.5) -> dict[str, Any]:
    """An evaluation of a generator that brightens what is dark; the file lies in `folder`."""
    measure = EnhancementMeasure()
    for i, subject in enumerate(subjects):
        truth = layered_truth(i, SHAPE)
        raw = np.clip(0.2 * truth - 0.6 + np.random.default_rng(i).normal(0, 0.1, SHAPE), -1, 1)
        enhanced = raw + gain * (0.8 + 0.02 * i - raw) / 2
        measure.add(subject, f"{subject}_{i}", raw, enhanced, truth if labelled else None, SPACING)
    entries = []
    for plane in ("sagittal", "transverse"):
        file = f"enhancement_pictures/lowest_{plane}.png"
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).write_bytes(PNG)
        entry = {"file": file, "role": "lowest", "subject": "a", "scan": "a_<1>", "l1_percent": 3.25, "plane": plane}
        entries.append(entry | {"index": 5})
    measure.write(folder, pictures=entries)
    content: dict[str, Any] = json.loads((folder / "enhancement.json").read_text())
    return content


def method(folder: Path) -> Method:
    return Method("ours", "Ours", {}, [], [], folder / "predictions")


def test_section_of_the_methods_that_were_measured(run_dir: Path) -> None:
    content = measured(run_dir / "evaluation/grn_plus_sge")
    html = build_report(run_dir, scans=0).read_text()
    page = Page(html)
    assert page.open == []
    assert page.outside == []
    assert page.ids.count("generator") == 1
    assert 'href="#generator"' in html
    section = Page(html[html.index('<section id="generator"') : html.index('<section id="training"')])
    assert "GRN+ with SGE" in section.text
    assert "U-Net" not in section.text
    for words in ("Brightens dark regions: yes", "Sharpens boundaries: not shown", "Only 3 subjects", "a_<1>"):
        assert words in section.text
    cnr = content["boundaries"]["deep fascial membrane | muscle"]["cnr"]
    assert f"{cnr['raw']:.2f} → {cnr['enhanced']:.2f}" in section.text
    assert f"{content['l1_percent']['mean']:.1f} % of the dynamic range" in section.text
    assert len(section.images) == 2
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in section.images)
    assert html.count("Raw, enhanced and difference of a slice. Scan a_&lt;1&gt;") == 2
    assert 'role="img" aria-label="Histograms of the echo levels of each layer' in html
    entry = json.loads((run_dir / "report.json").read_text())["methods"]["grn_plus_sge"]["enhancement"]
    assert [claim["verdict"] for claim in entry.pop("claims")] == ["yes", "not shown"]
    assert entry == content


def test_no_file_no_section(run_dir: Path) -> None:
    html = build_report(run_dir, scans=0).read_text()
    assert "generator" not in Page(html).ids
    assert "#generator" not in html
    report = json.loads((run_dir / "report.json").read_text())
    assert all("enhancement" not in method for method in report["methods"].values())
    assert report["notes"] == []


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"l1_percent": 3}', "boundaries", "histograms", "regions"])
def test_a_damaged_file_is_a_note(tmp_path: Path, damage: str) -> None:
    content = measured(tmp_path)
    text = json.dumps({**content, damage: {"dark": None}}) if damage in content else damage
    (tmp_path / "enhancement.json").write_text(text)
    notes: list[str] = []
    assert enhancement_section(method(tmp_path), notes) is None
    assert [note[: note.index(" (")] for note in notes] == ["Ours: evaluation/ours/enhancement.json could not be read"]


def test_a_missing_picture_is_a_note(tmp_path: Path) -> None:
    measured(tmp_path)
    (tmp_path / "enhancement_pictures/lowest_sagittal.png").unlink()
    notes: list[str] = []
    section = enhancement_section(method(tmp_path), notes)
    assert section is not None
    assert len(section.pictures) == 1
    assert notes == ["Ours: enhancement_pictures/lowest_sagittal.png is missing."]


def test_scans_without_labels(run_dir: Path) -> None:
    measured(run_dir / "evaluation/grn_plus_sge", labelled=False)
    page = Page(build_report(run_dir, scans=0).read_text())
    assert page.open == []
    assert "L1 distance between raw and enhanced" in page.text
    assert "Brightens dark regions" not in page.text
    assert "intervals are too narrow" not in page.text
    assert len(page.images) == 2


def test_one_subject_shows_nothing_and_six_need_no_caveat(tmp_path: Path) -> None:
    measured(tmp_path, "aa")
    section = enhancement_section(method(tmp_path), [])
    assert section is not None
    assert section.claims[0].text.startswith("Brightens dark regions: not shown.")
    assert "one subject, so no interval" in section.claims[0].text
    assert section.caveat.startswith("Only 1 subject:")
    measured(tmp_path, "abcdef")
    section = enhancement_section(method(tmp_path), [])
    assert section is not None
    assert section.claims[0].verdict == "yes"
    assert section.caveat == ""


def quantity(change: float | None, ci: tuple[float, float] | None) -> dict[str, Any]:
    return {"raw": 1.0, "enhanced": 2.0, "change": change, "subject_ci": ci}


UP, DOWN, BOTH = quantity(2, (1, 3)), quantity(-2, (-3, -1)), quantity(1, (-1, 3))
ALONE, ABSENT, ROUNDING = quantity(2, None), quantity(None, None), quantity(1e-5, (1e-6, 1e-4))


@pytest.mark.parametrize(
    ("dark", "sharp", "prominent", "verdicts", "words"),
    [
        (UP, UP, UP, ("yes", "yes"), ("+2.0 (+1.0 to +3.0)", "+2.00 (+1.00 to +3.00)")),
        (DOWN, DOWN, UP, ("no", "no"), ("no, it darkens them.", "no, it blurs them.")),
        (BOTH, BOTH, UP, ("not shown", "not shown"), ("+1.0 (−1.0 to +3.0)", "not shown.")),
        (ALONE, ALONE, ALONE, ("not shown", "not shown"), ("no interval", "no interval")),
        (ABSENT, ABSENT, ABSENT, ("not shown", "not shown"), ("–", "–")),
        (UP, UP, DOWN, ("yes", "not shown"), ("yes.", "not shown, since the gradient rises within the layers too")),
        (UP, UP, BOTH, ("yes", "not shown"), ("yes.", "rises within the layers too")),
        (ROUNDING, ROUNDING, UP, ("not shown", "not shown"), ("not shown.", "not shown.")),
        (UP, DOWN, DOWN, ("yes", "no"), ("yes.", "no, it blurs them.")),
    ],
)
def test_verdicts_follow_the_intervals(
    dark: dict, sharp: dict, prominent: dict, verdicts: tuple[str, str], words: tuple[str, str]
) -> None:
    every = {"cnr": UP, "gcnr": DOWN, "sharpness_per_mm": sharp, "prominence": prominent}
    found = claims({"regions": {"dark": dark, "bright": BOTH}, "all_boundaries": every})
    assert tuple(claim.verdict for claim in found) == verdicts
    for claim, word in zip(found, words, strict=True):
        assert word in claim.text
    assert "gCNR −2.00 (−3.00 to −1.00)" in found[1].text


def test_histograms_say_what_is_cut_off_and_what_is_absent(tmp_path: Path) -> None:
    content = measured(tmp_path)
    layers = content["histograms"]["layers"]
    layers["dermis"] = {"raw": [0] * 64, "enhanced": [0] * 64}
    layers["muscle"]["enhanced"] = [300, *[10] * 70][:64]
    svg = histogram_figure(content, "h")
    found = texts(svg)
    assert {"muscle", "deep fat", "in no scan", "raw (line)", "enhanced (area)"} <= set(found)
    assert f"enhanced {100 * 300 / 930:.0f} %" in found
    assert ET.fromstring(svg).get("viewBox")
    assert "currentColor" in svg
    assert "#010203" not in svg
