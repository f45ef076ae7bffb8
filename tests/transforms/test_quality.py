from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from grn_monai.errors import InputError
from grn_monai.measure.agreement import QUALITY_FORMAT
from grn_monai.measure.sources import read_quality
from grn_monai.transforms import OrderedLayersd
from grn_monai.transforms.quality import ArgmaxLabelsd, SaveQualityd, ScanQualityd


@pytest.fixture
def item(tmp_path: Path) -> dict:
    torch.manual_seed(0)
    probabilities = (3 * torch.randn(7, 4, 5, 12)).softmax(0)
    meta = {"filename_or_obj": str(tmp_path / "a.b_scan.nii.gz")}
    counts = torch.diag(torch.arange(1, 8))
    counts[1, 2] = 5
    image = MetaTensor(torch.zeros(1, 4, 5, 12), meta=meta)
    return {"image": image, "pred": MetaTensor(probabilities), "plane_counts": counts, "subject": "s1", "scan": "x"}


def test_numbers_of_the_decode(item: dict, tmp_path: Path) -> None:
    before = item["pred"].argmax(0).numpy()
    d = ArgmaxLabelsd("pred")(item)
    assert d["argmax"].dtype == torch.uint8
    assert d["pred"] is item["pred"], "the probabilities are not copied"
    d = ScanQualityd("pred")(OrderedLayersd("pred")(d))
    assert "argmax" not in d
    after = d["pred"][0].numpy()
    order = d["quality"]["layer_order"]
    tissue = (before > 0) | (after > 0)
    assert order["changed_percent"] == pytest.approx(100 * (before != after)[tissue].mean())
    lines = before.reshape(-1, 12).astype(int)
    unordered = [bool((np.diff(line[line > 0]) < 0).any()) for line in lines]
    assert order["out_of_order_percent"] == pytest.approx(100 * np.mean(unordered))
    assert d["quality"]["sge_disagreement"] is None
    assert d["quality"]["sge"] is False
    assert d["quality"]["plane_disagreement"]["disagreement_percent"] == pytest.approx(100 * 5 / (27 + 5))

    SaveQualityd("quality", tmp_path / "out")(d)
    file = tmp_path / "out" / "a.b_scan_quality.json"
    content = json.loads(file.read_text())
    assert content["format"] == QUALITY_FORMAT
    assert (content["subject"], content["scan"]) == ("s1", "x")
    assert content["planes"] == ["sagittal", "transverse"]
    values, notes = read_quality(file)
    assert notes == {}
    assert values["plane_disagreement"] == pytest.approx(15.625)
    assert values["sge_disagreement"] is None
    assert values["out_of_order"] == order["out_of_order_percent"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == [file.name]


def test_without_the_decode_nothing_is_called_changed(item: dict) -> None:
    d = OrderedLayersd("pred", ordered=False)(ArgmaxLabelsd("pred")(item))
    d = ScanQualityd("pred", planes="sagittal", ordered=False)(d)
    assert d["quality"]["ordered"] is False
    assert d["quality"]["planes"] == ["sagittal"]
    assert d["quality"]["layer_order"]["changed_percent"] is None
    assert d["quality"]["layer_order"]["out_of_order_percent"] > 0


def test_forgotten_argmax(item: dict) -> None:
    with pytest.raises(InputError, match="Put ArgmaxLabelsd before"):
        ScanQualityd("pred")(item)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"format": 3}', '"x"', "\x00"])
def test_a_damaged_file_is_told_not_raised(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a_quality.json"
    file.write_text(text)
    values, notes = read_quality(file)
    assert values == {}
    assert set(notes) == {"plane_disagreement", "sge_disagreement", "out_of_order"}
    assert all(note.startswith("Not known: a_quality.json") for note in notes.values())


@pytest.mark.parametrize(
    "value", ["NaN", "1e999", "-Infinity", '"x"', '"5"', "true", "[1]", "-0.1", "100.5", "1" * 400]
)
def test_what_is_no_percentage_is_not_known(tmp_path: Path, value: str) -> None:
    file = tmp_path / "a_quality.json"
    text = '{"format": "%s", "plane_disagreement": {"disagreement_percent": %s}, "sge_disagreement": null, '
    file.write_text((text + '"layer_order": {"out_of_order_percent": 1}}') % (QUALITY_FORMAT, value))
    values, notes = read_quality(file)
    assert values == {"plane_disagreement": None, "sge_disagreement": None, "out_of_order": 1.0}
    assert list(notes) == ["plane_disagreement"]
    assert "no number from 0 to 100" in notes["plane_disagreement"]
    assert len(notes["plane_disagreement"]) < 200


def test_a_single_slice_names_the_one_plane_that_was_used() -> None:
    torch.manual_seed(0)
    for shape, plane in (((9, 1, 12), "transverse"), ((1, 9, 12), "sagittal")):
        d = ArgmaxLabelsd("pred")({"pred": torch.rand(7, *shape)})
        d = ScanQualityd("pred")(OrderedLayersd("pred")(d))
        assert d["quality"]["planes"] == [plane]
