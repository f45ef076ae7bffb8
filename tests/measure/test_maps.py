"""Pictures of thickness and of repeats: their axes and colours, read back from matplotlib as it draws."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES
from grn_monai.measure.maps import scale_end, write_map_picture
from grn_monai.measure.plots import MAX_LABELS, bland_altman_figure
from grn_monai.measure.repeatability import repeatability

SPACING = (0.5, 0.4, 0.25)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved, after it was drawn."""
    seen: list[Figure] = []
    save = Figure.savefig

    def watched(figure: Figure, *args: Any, **kwargs: Any) -> None:
        save(figure, *args, **kwargs)
        seen.append(figure)

    monkeypatch.setattr(Figure, "savefig", watched)
    return seen


def _panels(figure: Figure, title: str) -> list[Any]:
    return [ax for ax in figure.axes if ax.get_title().startswith(title)]


@pytest.mark.parametrize(
    ("p95", "end"), [(1.0, 1.0), (1.01, 1.5), (7.2, 8.0), (0.33, 0.4), (26.0, 30.0), (9.1, 10.0), (0.1, 0.1)]
)
def test_colour_bars_end_at_the_next_round_number(p95: float, end: float) -> None:
    assert scale_end(p95) == pytest.approx(end)


def test_maps_have_x_to_the_right_and_y_downwards(tmp_path: Path, figures: list[Figure]) -> None:
    maps = {2: np.full((40, 30), 2.0, np.float32), 6: np.full((40, 30), 9.0, np.float32)}
    maps[2][:8, 20:] = 0  # absent at small x and large y: bottom left
    maps[2][30:, :8] = 7.9  # thick at large x and small y: top right; 95th percentile 7.9, so the bar ends at 8
    write_map_picture(tmp_path / "map.png", "one", maps, LAYER_NAMES, SPACING, {6})
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    ax = _panels(figures[0], "superficial fat")[0]
    assert ax.get_title() == f"superficial fat\nmean {maps[2][maps[2] > 0].mean():.2f} mm"
    assert _panels(figures[0], "muscle")[0].get_title().endswith("mean at least 9.00 mm (cut by the field of view)")

    def colour(x: float, y: float) -> list[int]:
        box = ax.get_window_extent()
        scale = picture.shape[1] / figures[0].bbox.width
        column = (box.x0 + x * box.width) * scale
        row = picture.shape[0] - (box.y1 - y * box.height) * scale
        return picture[round(row), round(column)].tolist()

    viridis = matplotlib.colormaps["viridis"]
    for place, expected in (((0.1, 0.9), (217,) * 3), ((0.9, 0.1), None), ((0.1, 0.1), None)):
        if expected is None:
            expected = tuple(255 * part for part in viridis((7.9 if place[0] > 0.5 else 2.0) / 8)[:3])
        assert colour(*place) == pytest.approx(expected, abs=3), place
    assert ax.get_xlim() == (0, 20.0)
    assert ax.get_ylim() == (12.0, 0)
    said = " ".join(text.get_text() for text in figures[0].texts)
    assert "y downwards" in said
    assert "of this scan" in said


@pytest.mark.parametrize(("shape", "axis"), [((50, 1), 0), ((1, 50), 1), ((1, 1), 0)])
def test_single_slices_are_curves(tmp_path: Path, figures: list[Figure], shape: tuple[int, int], axis: int) -> None:
    rng = np.random.default_rng(0)
    maps = {label: rng.uniform(1, 3, shape).astype(np.float32) for label in (1, 2, 6)}
    maps[2].ravel()[::7] = 0
    write_map_picture(tmp_path / "map.png", "one", maps, LAYER_NAMES, SPACING)
    assert len(figures[0].axes) == 1
    ax = figures[0].axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (f"{'xy'[axis]} in mm", "thickness in mm")
    for line, (label, thickness) in zip(ax.get_lines(), maps.items(), strict=True):
        curve = thickness.ravel()
        np.testing.assert_allclose(line.get_xdata(), (np.arange(curve.size) + 0.5) * SPACING[axis])
        np.testing.assert_allclose(line.get_ydata(), np.where(curve > 0, curve, np.nan))
        assert line.get_color() == LAYER_COLOURS[label]
    assert Image.open(tmp_path / "map.png").width > 600


def _repeats(values: Any, label: int = 2, name: str = "superficial fat") -> list[dict[str, Any]]:
    """Rows of (site, repeat) thickness and nothing else."""
    scans = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            layer = {"label": label, "name": name, "thickness_mm": {"mean": value}, "volume_ml": None}
            keys = {"subject": f"s{i}", "side": "left", "site": "L3", "status": None, "repeat": j + 1}
            scans.append({**keys, "scan": f"{name} {i} {j}", "layers": [layer], "fascia": None})
    return repeatability(scans)


def _drawn(rows: list[dict[str, Any]], figures: list[Figure]) -> Figure:
    picture = bland_altman_figure(rows)
    assert picture is not None
    assert Image.open(io.BytesIO(picture)).format == "PNG"
    return figures[-1]


def test_repeats_in_one_panel_with_pooled_limits(figures: list[Figure]) -> None:
    values = np.random.default_rng(1).normal(5, 1, (6, 3))
    figure = _drawn(_repeats(values), figures)
    panels = _panels(figure, "superficial fat")
    assert len(panels) == 1
    assert "n = 6 sites × 3 repeats" in panels[0].get_title()
    *lines, a, b, c = panels[0].get_lines()
    differences = np.stack([values[:, 1] - values[:, 0], values[:, 2] - values[:, 0], values[:, 2] - values[:, 1]])
    for points, expected in zip((a, b, c), differences, strict=True):
        np.testing.assert_allclose(points.get_ydata(), expected)
    bias, sd = differences.mean(), np.std(differences, ddof=1)
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([bias, bias - 1.96 * sd, bias + 1.96 * sd])
    assert "second − first" in figure.get_suptitle()
    assert len(figure.legends) == 1
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["repeat 2 − 1", "repeat 3 − 1", "repeat 3 − 2"]
    low, high = panels[0].get_ylim()
    assert low < min(differences.min(), bias - 1.96 * sd)
    assert high > max(differences.max(), bias + 1.96 * sd)


@pytest.mark.parametrize(("mean", "half"), [(0.5, 0.01), (25.0, 0.25)])
def test_equal_repeats_are_seen_to_be_equal(figures: list[Figure], mean: float, half: float) -> None:
    values = mean + np.array([[0, 1e-16], [1e-16, 0], [0, 0]])
    panel = _panels(_drawn(_repeats(values), figures), "superficial fat")[0]
    assert panel.get_ylim() == pytest.approx((-half, half))
    assert panel.get_xlim() == pytest.approx((mean - half, mean + half))
    assert not figures[-1].legends  # one pair needs none
    assert not panel.yaxis.get_offset_text().get_text()


def test_a_hundred_labels_do_not_make_an_endless_picture(figures: list[Figure]) -> None:
    values = np.random.default_rng(2).normal(5, 1, (4, 2))
    row = _repeats(values)[0]
    figure = _drawn([{**row, "label": i, "layer": f"organ {i}"} for i in range(1, 41)], figures)
    assert len(_panels(figure, "organ")) == MAX_LABELS
    assert f"{MAX_LABELS} of 40" in figure.get_suptitle()
