from __future__ import annotations

import json
from pathlib import Path

import pytest

from grn_monai.report import read_run, tables


def test_scan_table_has_the_worst_scan_first(run_dir: Path) -> None:
    methods = read_run(run_dir).methods
    table = tables.scan_table(methods, "decoded")
    means = [tables.scan_means(method, "decoded") for method in methods]
    averages = []
    for scan, cells in table.rows:
        own = [mean[cells[0].text, scan] for mean in means]
        assert [cell.text for cell in cells[1:]] == [f"{100 * value:.1f}" for value in own]
        assert [cell.best for cell in cells[1:]] == [value == max(own) for value in own]
        averages.append(sum(own) / len(own))
    assert averages == sorted(averages)
    assert len(averages) == 4


def test_scan_means_agree_with_the_summary(run_dir: Path) -> None:
    for method in read_run(run_dir).methods:
        means = tables.scan_means(method, "decoded")
        assert sum(means.values()) / len(means) == pytest.approx(method.metrics["decoded"]["mean"], rel=1e-5)


def test_overall_cells(run_dir: Path) -> None:
    methods = read_run(run_dir).methods
    change = tables.differences(methods)
    table = tables.overall_table(methods, change)
    assert list(table.columns)[:3] == ["Slices, both planes", "Fused volume", "Fused, decoded"]
    scores = methods[1].metrics["slice"]
    cell = table.rows[1][1][0]
    assert cell.text == f"{100 * scores['mean']:.1f}"
    assert cell.below[0] == "slices {:.1f} to {:.1f}".format(*(100 * bound for bound in scores["ci"]))
    assert cell.below[1].startswith("subjects ")
    assert [c.text for c in table.rows[0][1][3:]] == ["reference", "reference"]
    assert table.rows[2][1][3].text == f"+{100 * change['grn_plus_sge']['slice'].mean:.1f}"


def test_missing_layers_are_shown_with_the_distances(run_dir: Path) -> None:
    path = run_dir / "evaluation/unet/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["decoded"]["n_missing"]["dermis"] = 2
    metrics["decoded"]["hd95_mm"]["dermis"] = None
    path.write_text(json.dumps(metrics))
    heading, table = tables.distance_table(read_run(run_dir).methods, "decoded")[0]
    assert heading == "HD95 (mm)"
    dermis = table.rows[0][1][0]
    assert (dermis.text, dermis.below, dermis.best) == ("–", ("2 missing",), False)
    assert table.rows[0][1][-1].below == ("2 missing",)
    best = [name for name, cells in table.rows if cells[0].best]
    assert len(best) == 1


def test_a_single_method_has_no_best_and_no_difference(run_dir: Path) -> None:
    methods = read_run(run_dir).methods[:1]
    assert tables.differences(methods) == {}
    table = tables.layer_table(methods, "slice")
    assert table is not None
    assert not any(cell.best for cell in table.rows[0][1])
    assert tables.layer_table(methods, "unknown") is None
