from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np

from grn_monai.report import Training, read_run
from grn_monai.report.figures import dice_figure, thickness_figure, training_figures
from grn_monai.report.palette import method_colours
from grn_monai.report.panels import ScanVolumes, load_scan

COLOURS = method_colours(["unet", "grn_plus", "grn_plus_sge"])


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_training_plots(run_dir: Path) -> None:
    plots = dict(training_figures(read_run(run_dir).trainings, COLOURS))
    assert list(plots) == [
        "Training loss of S (mean of the epoch)",
        "Training loss of G (mean of the epoch)",
        "Validation Dice loss",
        "Gradient norm",
    ]
    legend = texts(plots["Validation Dice loss"])
    assert {"U-Net: S alone", "GRN+: S alone", "GRN+: with G (SGE)"} <= set(legend)
    assert "GRN+: G" in texts(plots["Gradient norm"])
    assert "U-Net: G" not in texts(plots["Gradient norm"])
    for svg in plots.values():
        assert "currentColor" in svg
        assert "#010203" not in svg
        assert COLOURS["grn_plus"].lower() in svg


def test_plots_of_adversarial_and_semi_supervised_trainings() -> None:
    columns = (
        "train_loss", "stage1_loss", "unlabeled_stage1_loss", "val_dice_loss", "val_dice_loss_sge",
        "unlabeled_loss_raw", "unlabeled_loss_sge", "unlabeled_discriminator_loss", "unlabeled_adversarial_loss",
        "l1_loss", "unlabeled_l1_loss", "grad_norm_generator", "grad_norm_segmentor",
    )  # fmt: skip
    history = {"epoch": np.arange(1.0, 4.0), **{c: np.array([0.9, 0.5, 0.4]) for c in columns}}
    runs = [Training(name, name.upper(), history, {}) for name in ("grn_ssl", "other", "third")]
    plots = dict(training_figures(runs, method_colours([run.name for run in runs])))
    assert list(plots)[3:6] == [
        "Consistency on unlabelled images",
        "Discriminator against generator",
        "L1 distance of G(x) to x",
    ]
    legend = texts(plots["Discriminator against generator"])
    assert {"GRN_SSL: D", "GRN_SSL: G", "THIRD: G"} <= set(legend)
    assert "GRN_SSL" in texts(plots["Training loss of S (mean of the epoch)"])


def test_no_plot_without_numbers() -> None:
    empty = {"epoch": np.array([1.0, 2.0]), "train_loss": np.array([np.nan, np.nan])}
    assert training_figures([Training("unet", "U-Net", empty, {})], COLOURS) == []
    assert training_figures([], COLOURS) == []


def test_dice_plot_has_a_dot_for_each_scan(run_dir: Path) -> None:
    methods = read_run(run_dir).methods
    svg = dice_figure(methods, "decoded", COLOURS)
    assert svg is not None
    tree = ET.fromstring(svg)
    dots = [
        use
        for use in tree.iter("{http://www.w3.org/2000/svg}use")
        if "fill-opacity: 0.45" in use.get("style", "") or "opacity: 0.45" in use.get("style", "")
    ]
    assert len(dots) == 3 * 6 * 4
    assert dice_figure(methods, "no such kind", COLOURS) is None


def test_thickness_figure_states_the_error(run_dir: Path) -> None:
    run = read_run(run_dir)
    scan = load_scan(run.items["a", "a_1"], run.methods)
    svg = thickness_figure(scan, run.methods, "t")
    assert svg is not None
    assert scan.truth is not None
    error = ((scan.predictions["unet"] == 2).sum(2) - (scan.truth == 2).sum(2)) * 0.15
    assert f"mean |error| {np.abs(error).mean():.2f} mm" in texts(svg)
    nothing = ScanVolumes(scan.image, None, scan.predictions, {}, scan.spacing, [])
    assert thickness_figure(nothing, run.methods, "t") is None


def test_figures_ignore_and_keep_the_users_settings(run_dir: Path) -> None:
    trainings = read_run(run_dir).trainings
    before = training_figures(trainings, COLOURS)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        assert training_figures(trainings, COLOURS) == before
        assert matplotlib.rcParams["font.size"] == 30
