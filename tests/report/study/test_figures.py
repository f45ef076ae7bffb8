"""Figures of a study: what they show, that nothing is cut off, and that only those with data are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.legend import Legend

from grn_monai.report.study import (
    figures_base as base,
)
from grn_monai.report.study import (
    figures_effects,
    figures_pictures,
    figures_runs,
    figures_scores,
    load_study,
)
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.figures import study_figures
from tests.report.study.made import PLANES, SLICES, SUBJECTS, constant, write_study

METHODS: dict[str, dict[str, Any]] = {
    "unet": {"title": "U-Net", "bundle": "us_layers_supervised"},
    "teacher": {"title": "Mean Teacher", "bundle": "us_layers_semi"},
    "uamt": {"title": "UAMT", "bundle": "us_layers_semi"},
    "sel": {"title": "GRN-SEL", "bundle": "us_layers_grn_sel", "modes": ["raw", "sge"]},
    "ssl": {"title": "GRN-SSL", "bundle": "us_layers_grn_ssl", "modes": ["raw", "sge"]},
    "vnet": {"title": "V-Net", "bundle": "us_layers_supervised", "overlays": ["network_vnet"], "fractions": [1.0]},
    "frozen": {
        "title": "GRN-SEL without feedback",
        "bundle": "us_layers_grn_sel",
        "group": "ablation",
        "fractions": [0.05],
    },
}
DICE = {"unet": 0.4, "teacher": 0.42, "uamt": 0.44, "sel": 0.5, "ssl": 0.56, "vnet": 0.45, "frozen": 0.48}
SEEDS = (0, 1)
N = len(SUBJECTS) * len(PLANES) * SLICES


def scores(method: str, fraction: float, seed: int, mode: str) -> np.ndarray:
    """Known Dice: over the seeds that of DICE, 0.1 more with all labels, 0.02 more with SGE; slices differ a little."""
    value = DICE[method] + 0.1 * (fraction == 1) + 0.02 * (mode == "sge") + (0.01 if seed else -0.01)
    return constant(value) + np.linspace(-0.05, 0.05, N)[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    every = {
        (name, fraction, seed, f"test_{mode}"): scores(name, fraction, seed, mode)
        for name, method in METHODS.items()
        for fraction in method.get("fractions", (0.05, 1.0))
        for seed in SEEDS
        for mode in method.get("modes", ["raw"])
    }
    place = write_study(tmp_path_factory.mktemp("figures") / "study", METHODS, every, seeds=SEEDS)
    cases = [
        {
            "key": name,
            "title": METHODS[name]["title"],
            "train": {"images": [4, 0], "precision": "float32", "parameters": 1, "memory": None, "seconds": 1.0},
            "inference": {
                mode: {"parameters": size * 10**6 * (1 + 2 * (mode == "sge")), "flops": size * 10**9, "seconds": 1.0}
                for mode in METHODS[name].get("modes", ["raw"])
            },
        }
        for size, name in ((1, "unet"), (2, "sel"), (9, "vnet"), (1, "teacher"))
    ]
    (place / "complexity.json").write_text(json.dumps({"size": 256, "batch": 4, "rounds": 1, "cases": cases}))
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> StudyResults:
    return load_study(folder)


NAMES = {
    "dice_over_labels_test",
    "layers_over_labels_grn_test",
    "layers_over_labels_semi_supervised_test",
    "layers_5pct_test",
    "layers_100pct_test",
    "effects_test",
    "slices_5pct_test",
    "slices_100pct_test",
    "ablations_5pct_test",
    "capacity_5pct_test",
    "capacity_100pct_test",
    "training_5pct",
    "training_100pct",
}


def test_every_figure_with_data_is_drawn_and_says_what_it_shows(
    results: StudyResults, drawn: dict[str, Any], tmp_path: Path
) -> None:
    found = study_figures(results, tmp_path / "new" / "figures")
    assert {path.stem for _, path, _ in found} == NAMES == set(drawn)
    assert len({title for title, _, _ in found}) == len(found)
    for title, path, caption in found:
        assert imread(path).shape[1] == 1152  # 7.2 inches: the width of a page
        assert caption.startswith(title)
        assert "Simulated data." in caption
        if not path.stem.startswith("training"):
            assert "12 slices, 3 scans, 3 subjects; 2 seeds a method." in caption
        if not path.stem.startswith(("training", "slices")):
            assert ("test inverted" if path.stem.startswith("effects") else "95 % bootstrap intervals") in caption
    for name, figure in drawn.items():
        _nothing_is_cut(figure, name)


def _nothing_is_cut(figure: Figure, name: str) -> None:
    """All that is drawn lies within the picture: panels with their labels, and legends, which the layout leaves out."""
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    boxes = {"panels": figure.get_tightbbox()}
    for i, legend in enumerate(figure.findobj(Legend)):
        boxes[f"legend {i}"] = legend.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    for part, box in boxes.items():
        inside = min(box.x0, box.y0) > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
        assert inside, f"{name}: {part} at {box} of {width} x {height}"


def test_curves_show_means_over_slices_and_seeds(results: StudyResults, drawn: dict[str, Any], tmp_path: Path) -> None:
    figures_scores.curve_figures(results, tmp_path, "test")
    grn, semi = drawn["dice_over_labels_test"].axes[:2]
    assert [axes.get_title() for axes in (grn, semi)] == ["GRN", "Semi-supervised"]
    values = {tuple(np.round(line.get_ydata(), 3)) for line in grn.lines}
    assert values == {(40, 50), (50, 60), (52, 62), (56, 66), (58, 68)}  # U-Net, SEL, SEL w. SGE, SSL, SSL w. SGE
    assert {tuple(np.round(line.get_ydata(), 3)) for line in semi.lines} == {(40, 50), (42, 52), (44, 54)}
    assert grn.get_ylim() == semi.get_ylim()
    layers = drawn["layers_over_labels_grn_test"].axes
    assert [axes.get_title() for axes in layers[:2]] == ["dermis", "superficial fat"]
    assert len(layers) == 6


def test_bars_are_those_of_the_scores_and_their_subject_interval(
    results: StudyResults, drawn: dict[str, Any], tmp_path: Path
) -> None:
    figures_scores.layer_figures(results, tmp_path, "test")
    axes = drawn["layers_5pct_test"].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["U-Net", "Mean Teacher", "UAMT"]
    assert "V-Net" not in names  # trained with all labels only
    widths = [bar.get_width() for bar in axes.patches]
    assert widths[0] == pytest.approx(40, abs=1e-4)
    assert widths[names.index("GRN-SSL w. SGE")] == pytest.approx(58, abs=1e-4)
    assert not axes.collections  # three subjects are too few for a bootstrap


def test_effects_are_paired_differences_in_points(results: StudyResults, drawn: dict[str, Any], tmp_path: Path) -> None:
    ((title, _, caption),) = figures_effects.effect_figures(results, tmp_path, "test")
    assert title == "Effects of RAug, SGE, SSL"
    assert "percentage points" in caption
    panels = {axes.get_title(): axes for axes in drawn["effects_test"].axes if axes.get_title()}
    differences = {
        name: {tuple(np.round(line.get_ydata(), 3)) for line in axes.lines if line.get_marker() != "None"}
        for name, axes in panels.items()
    }
    # With all labels there are no unlabelled images that could help.
    assert differences == {"RAug": {(10, 10)}, "SGE": {(2, 2)}, "SSL": {(6,)}}


def test_capacity_stands_at_parameters_and_flops(results: StudyResults, drawn: dict[str, Any], tmp_path: Path) -> None:
    figures_runs.capacity_figures(results, tmp_path, "test")
    parameters, flops = drawn["capacity_100pct_test"].axes
    points = [
        {(line.get_xdata()[0], round(line.get_ydata()[0], 3)) for line in axes.lines} for axes in (parameters, flops)
    ]
    assert points[0] == {(1, 50), (2, 60), (6, 62), (9, 55)}  # Mean Teacher predicts with the network of U-Net
    assert points[1] == {(1, 50), (2, 60), (2, 62), (9, 55)}
    assert parameters.get_xscale() == flops.get_xscale() == "log"
    assert parameters.get_ylim() == flops.get_ylim()


def test_training_curves_have_a_line_for_each_seed(
    results: StudyResults, drawn: dict[str, Any], tmp_path: Path
) -> None:
    figures_runs.training_figures(results, tmp_path)
    panels = {axes.get_title(): axes for axes in drawn["training_100pct"].axes if axes.get_title()}
    assert {name: len(axes.lines) for name, axes in panels.items()} == {"GRN": 6, "Semi-supervised": 6, "Others": 4}
    line = panels["GRN"].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([96], [0.45])  # the first epoch has no validation


def test_the_reference_alone_has_no_panel_beside_others(
    results: StudyResults, drawn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in results.runs:
        if run.method in ("vnet", "teacher", "uamt"):
            monkeypatch.setitem(run.__dict__, "history", {})
    figures_runs.training_figures(results, tmp_path)
    assert {axes.get_title() for axes in drawn["training_100pct"].axes} == {""}
    legend = drawn["training_100pct"].axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()][:2] == ["U-Net", "GRN-SEL"]


def test_looks_tell_all_variants_apart(results: StudyResults) -> None:
    looks = base.looks(results)
    assert len(looks) == 9
    assert len(set(looks.values())) == 9
    by_title = {variant.title: look for variant, look in looks.items()}
    assert by_title["GRN-SEL"].line == "--"
    assert by_title["GRN-SEL w. SGE"].line == "-"
    assert by_title["GRN-SEL"].colour == by_title["GRN-SEL w. SGE"].colour
    assert len({by_title[t].colour for t in ("U-Net", "Mean Teacher", "UAMT")}) == 3


def test_the_reference_stands_in_each_family(results: StudyResults) -> None:
    families = {name: [v.title for v in members] for name, members in base.families(base.variants(results)).items()}
    assert families["GRN"] == ["U-Net", "GRN-SEL", "GRN-SEL w. SGE", "GRN-SSL", "GRN-SSL w. SGE"]
    assert families["Semi-supervised"] == ["U-Net", "Mean Teacher", "UAMT"]
    assert families["Others"] == ["U-Net", "V-Net", "GRN-SEL without feedback"]


def test_many_shares_have_bands_and_few_figures(tmp_path: Path, drawn: dict[str, Any]) -> None:
    fractions = (0.05, 0.1, 0.3, 1.0)
    names = ("a", "b", "c", "d", "e")
    dice = constant(0.4, names) + np.linspace(-0.05, 0.05, 5 * len(PLANES) * SLICES)[:, None]
    every = {("unet", f, 0, "test_raw"): dice for f in fractions}
    place = write_study(tmp_path / "s", {"unet": METHODS["unet"]}, every, fractions, subjects=names, simulated=None)
    results = load_study(place)
    found = figures_scores.curve_figures(results, tmp_path, "test")
    found += figures_scores.spread_figures(results, tmp_path, "test")
    assert {name for name in drawn if name.startswith("slices")} == {"slices_5pct_test", "slices_100pct_test"}
    assert figures_effects.effect_figures(results, tmp_path, "test") == []
    axes = drawn["dice_over_labels_test"].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "30", "100"]
    assert [type(part).__name__ for part in axes.collections] == ["FillBetweenPolyCollection"]
    assert all("Data of unknown origin." in caption and "Simulated" not in caption for _, _, caption in found)
    for name, figure in drawn.items():
        _nothing_is_cut(figure, name)


def test_one_share_one_method_and_one_subject_are_drawn(tmp_path: Path, drawn: dict[str, Any]) -> None:
    dice = constant(0.0, ("s1",))
    place = write_study(
        tmp_path / "study", {"unet": METHODS["unet"]}, {("unet", 0.05, 0, "test_raw"): dice}, (0.05,), subjects=("s1",)
    )
    found = study_figures(load_study(place), tmp_path / "figures")
    assert set(drawn) == {"layers_5pct_test", "slices_5pct_test", "training_5pct"}
    assert "1 scan, 1 subject; 1 seed a method." in found[0][2]


@pytest.fixture
def with_volumes(tmp_path: Path) -> Path:
    """A study of two methods that kept their label volumes; the reference's slices get better with the index."""
    shape, rng = (2, 2, 14), np.random.default_rng(0)
    truth = np.broadcast_to(np.repeat(np.arange(7, dtype=np.uint8), 2), shape)
    rising = constant(0.0) + np.linspace(0.1, 0.9, N)[:, None]
    every = {
        ("unet", 1.0, 0, "test_raw"): rising,
        ("sel", 1.0, 0, "test_raw"): constant(0.2),
        ("sel", 1.0, 0, "test_sge"): constant(0.8),
    }
    place = write_study(tmp_path / "study", {k: METHODS[k] for k in ("unet", "sel")}, every, (1.0,))
    items = []
    for subject in SUBJECTS:
        name = f"{subject}_a"
        item = {"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz", "subject": subject, "scan": name}
        items.append(item)
        volumes = {place / "cohort" / item["image"]: rng.integers(0, 255, shape).astype(np.uint8)}
        volumes[place / "cohort" / item["label"]] = np.ascontiguousarray(truth)
        for run, mode in (("unet", "raw"), ("sel", "raw"), ("sel", "sge")):
            folder = place / f"runs/{run}/100pct/seed_0/evaluation/test_{mode}/predictions"
            volumes[folder / f"{name}_seg.nii.gz"] = np.ascontiguousarray(truth if mode == "sge" else truth[..., ::-1])
            if mode == "sge":
                volumes[folder / f"{name}_enhanced.nii.gz"] = rng.integers(0, 255, shape).astype(np.uint8)
        for path, volume in volumes.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
    (place / "cohort/dataset.json").write_text(
        json.dumps({"labels": {"0": "background"}, "training": [], "test": items})
    )
    return place


def test_pictures_show_the_median_and_the_worst_slice(
    with_volumes: Path, drawn: dict[str, Any], tmp_path: Path
) -> None:
    results = load_study(with_volumes)
    shown = figures_pictures.chosen_variants(results, 1.0, "test")
    assert [v.title for v in shown] == ["U-Net", "GRN-SEL w. SGE"]  # GRN-SEL in its better mode
    assert figures_pictures.chosen_slices(results, next(iter(shown)), 1.0, "test") == {"median": N // 2, "worst": 0}
    ((_, _, caption),) = figures_pictures.picture_figures(results, tmp_path, "test")
    assert "the median and the worst of the 12 test slices of U-Net" in caption
    figure = drawn["slices_segmented_100pct_test"]
    grid = np.array(figure.axes).reshape(2, 5)
    heads = [axes.get_title().replace("\n", " ") for axes in grid[0]]
    assert heads == ["scan x", "G(x) of GRN-SEL", "truth", "U-Net", "GRN-SEL w. SGE"]
    assert [axes.get_ylabel().replace("\n", " ") for axes in grid[:, 0]] == [
        "median: s2_a, transverse 0",
        "worst: s1_a, sagittal 0",
    ]
    assert [axes.get_xlabel() for axes in grid[0, 2:]] == [
        "",
        "Dice 16.7 %",
        "Dice 100.0 %",
    ]  # turned over, one of six fits
    pictures = [axes.images[0].get_array() for axes in grid[0]]
    assert np.array_equal(pictures[2], pictures[4])
    assert not np.array_equal(pictures[0], pictures[1])
    _nothing_is_cut(figure, "pictures")


def test_no_pictures_without_volumes_or_cohort(with_volumes: Path, results: StudyResults, tmp_path: Path) -> None:
    assert figures_pictures.picture_figures(results, tmp_path, "test") == []
    (with_volumes / "cohort/dataset.json").unlink()
    assert figures_pictures.picture_figures(load_study(with_volumes), tmp_path, "test") == []
