"""EnhancementHandler: numbers, files, pictures, scans without label, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, Dataset, MetaTensor
from monai.inferers import SimpleInferer
from torch import nn

from grn_monai.engines import ScanEvaluator
from grn_monai.errors import InputError
from grn_monai.handlers import EnhancementHandler
from grn_monai.handlers.enhancement import _cut
from grn_monai.inferers import TwoPlaneInferer
from tests.metrics.layered import layered_truth

SHAPE = (14, 12, 40)
AFFINE = torch.diag(torch.tensor([0.2, 0.25, 0.15, 1.0]))


class Scaled(nn.Module):
    """A generator that multiplies by a factor, and a segmentor that sees background everywhere."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.passes = 0

    def enhance(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.factor * x

    def segmentor(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones_like(x), torch.zeros_like(x).expand(-1, 6, -1, -1)], 1)

    def enhance_and_segment(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        enhanced = self.enhance(x)
        return enhanced, self.segmentor(enhanced)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.segmentor(self.enhance(x))


def scans(count: int, label: bool = True, amplitudes: list[float] | None = None) -> list[dict[str, Any]]:
    items = []
    for i in range(count):
        truth = layered_truth(i)
        image = 0.2 * truth - 0.6 + np.random.default_rng(i).normal(0, 0.1, SHAPE)
        image = np.clip(image * (amplitudes[i] if amplitudes else 1), -1, 1).astype(np.float32)
        item = {"image": MetaTensor(image[None], affine=AFFINE), "subject": f"s{i}", "scan": f"scan{i}"}
        items.append(item | ({"label": MetaTensor(truth[None], affine=AFFINE)} if label else {}))
    return items


def run(
    folder: Path, items: list[dict[str, Any]], factor: float = 0.5, size: tuple[int, int] | None = None, **options: Any
) -> tuple[EnhancementHandler, Scaled]:
    handler, network = EnhancementHandler(folder, **options), Scaled(factor)
    ScanEvaluator(
        "cpu",
        DataLoader(Dataset(items), batch_size=1),
        network,
        inferer=TwoPlaneInferer(size=size, return_enhanced=True),
        val_handlers=[handler],
    ).run()
    return handler, network


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "enhancement.json").read_text(), parse_constant=pytest.fail)
    return content


def test_numbers_and_files(tmp_path: Path) -> None:
    items = scans(3)
    handler, network = run(tmp_path, items)
    assert network.passes == 3 * 4  # slices of both planes, eight at a time: G runs once on each
    content = read(tmp_path)
    assert (content["n_scans"], content["n_subjects"]) == (3, 3)
    distances = [25 * float(item["image"].abs().mean()) for item in items]
    assert content["l1_percent"]["mean"] == pytest.approx(np.mean(distances), rel=1e-5)
    muscle = [float(item["image"][item["label"] == 6].mean()) for item in items]
    assert content["layers"]["muscle"]["mean_percent"]["raw"] == pytest.approx(50 * (np.mean(muscle) + 1), rel=1e-5)
    every = content["all_boundaries"]
    assert every["gradient_percent_per_mm"]["ratio"] == pytest.approx(0.5, rel=1e-4)
    assert every["sharpness_per_mm"]["change"] == pytest.approx(0, abs=1e-4)
    with (tmp_path / "enhancement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows if row["kind"] == "scan"] == ["scan0", "scan1", "scan2"]
    assert len(rows) == 3 * (1 + 6 + 2 + 5 + 1)
    assert not handler._kept


def test_spacing_and_depth_are_those_of_the_scan(tmp_path: Path) -> None:
    items = scans(1)
    run(tmp_path, items, pictures=False)
    image, label = (items[0][key][0].numpy() for key in ("image", "label"))
    at = (label[..., :-1] == 1) & (label[..., 1:] == 2)
    expected = 50 * np.abs(np.diff(image, axis=2))[at].mean() / 0.15
    got = read(tmp_path)["boundaries"]["dermis | superficial fat"]["gradient_percent_per_mm"]["raw"]
    assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (64, 48)])
def test_resizing_is_not_laid_to_the_generators_charge(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grn_monai.handlers.enhancement._BATCH", 5)
    items = scans(2)
    run(tmp_path, items, factor=1, size=size, pictures=False)
    content = read(tmp_path)
    assert content["l1_percent"]["mean"] == pytest.approx(0, abs=1e-4)
    every = content["all_boundaries"]
    assert [every[key]["change"] for key in every] == pytest.approx([0] * 5, abs=1e-4)


def test_pictures_of_the_lowest_the_median_and_the_highest(tmp_path: Path) -> None:
    # The distance grows with the amplitude: the order of the scans is 2, 5, 0, 6, 3, 1, 4.
    amplitudes = [0.5, 0.8, 0.3, 0.7, 0.9, 0.4, 0.6]
    handler, _ = run(tmp_path, scans(7, amplitudes=amplitudes))
    pictures = read(tmp_path)["pictures"]
    assert [(entry["role"], entry["plane"]) for entry in pictures] == [
        (role, plane) for role in ("lowest", "median", "highest") for plane in ("sagittal", "transverse")
    ]
    chosen = {entry["role"]: entry["scan"] for entry in pictures}
    assert chosen == {"lowest": "scan2", "median": "scan6", "highest": "scan4"}
    distances = {row.scan: row.l1_percent for row in handler.measure.scans}
    assert all(entry["l1_percent"] == pytest.approx(distances[entry["scan"]]) for entry in pictures)
    assert {entry["index"] for entry in pictures} == {SHAPE[0] // 2, SHAPE[1] // 2}
    files = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "enhancement_pictures").iterdir())
    assert files == sorted(entry["file"] for entry in pictures)
    for name in files:
        assert imread(tmp_path / name).shape[1] == pytest.approx(6.4 * 144, abs=1)


@pytest.mark.parametrize(("plane", "index", "lateral"), [("sagittal", 7, 0.25), ("transverse", 6, 0.2)])
def test_slices_shown_have_depth_downwards_and_their_own_spacing(plane: str, index: int, lateral: float) -> None:
    raw = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    cut = _cut(raw, -raw, None, (0.2, 0.25, 0.15), plane)
    expected = raw[index] if plane == "sagittal" else raw[:, index]
    np.testing.assert_array_equal(cut.raw, expected.T)
    np.testing.assert_array_equal(cut.enhanced, -expected.T)
    assert cut.labels is None
    assert (cut.index, cut.step_mm) == (index, (0.15, lateral))


def test_only_a_few_slices_are_in_memory(tmp_path: Path) -> None:
    handler = EnhancementHandler(tmp_path)
    sizes = []
    for i, distance in enumerate([5, 1, 9, 4, 6, 2, 8, 3, 7]):
        raw = np.zeros(SHAPE, np.float32)
        row = handler.measure.add("a", str(i), raw, raw + distance / 50, None, (1, 1, 1))
        handler._keep(row, [])
        sizes.append(len(handler._kept))
    assert max(sizes) == 5
    kept = [row.l1_percent for row, _ in handler._kept]
    assert (kept[0], kept[-1]) == pytest.approx((1, 9))
    assert kept[handler._roles()["median"]] == pytest.approx(5)


def test_fewer_scans_and_what_an_earlier_evaluation_left(tmp_path: Path) -> None:
    run(tmp_path, scans(3))
    (tmp_path / "enhancement_pictures" / "own.png").touch()
    run(tmp_path, scans(1))
    assert {entry["role"] for entry in read(tmp_path)["pictures"]} == {"only"}
    left = sorted(path.name for path in (tmp_path / "enhancement_pictures").iterdir())
    assert left == ["only_sagittal.png", "only_transverse.png", "own.png"]


def test_without_labels_there_are_distances_and_pictures(tmp_path: Path) -> None:
    run(tmp_path, scans(2, label=False))
    content = read(tmp_path)
    assert content["l1_percent"]["mean"] > 0
    assert content["n_labelled"] == 0
    assert "boundaries" not in content
    assert [entry["role"] for entry in content["pictures"]] == ["lowest", "lowest", "highest", "highest"]


def test_an_inferer_without_the_enhanced_image_is_refused_at_once(tmp_path: Path) -> None:
    network = Scaled(1)
    evaluator = ScanEvaluator(
        "cpu",
        DataLoader(Dataset(scans(1)), batch_size=1),
        network,
        inferer=TwoPlaneInferer(size=None),
        val_handlers=[EnhancementHandler(tmp_path)],
    )
    with pytest.raises(InputError, match="Set return_enhanced: true"):
        evaluator.run()
    assert network.passes == 0


def test_an_output_without_the_enhanced_image_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluator = ScanEvaluator(
        "cpu",
        DataLoader(Dataset(scans(1)), batch_size=1),
        nn.Identity(),
        inferer=SimpleInferer(),
        val_handlers=[EnhancementHandler(tmp_path)],
    )
    with pytest.raises(SystemExit):
        evaluator.run()
    assert "Set return_enhanced: true" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_starts_anew(tmp_path: Path) -> None:
    handler = EnhancementHandler(tmp_path, pictures=False)
    evaluator = ScanEvaluator(
        "cpu",
        DataLoader(Dataset(scans(2)), batch_size=1),
        Scaled(0.5),
        inferer=TwoPlaneInferer(size=None, return_enhanced=True),
        val_handlers=[handler],
    )
    evaluator.run()
    evaluator.run()
    assert read(tmp_path)["n_scans"] == 2
