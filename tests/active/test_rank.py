from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest

from grn_monai.active import rank, score_folder
from grn_monai.errors import InputError
from grn_monai.measure.agreement import QUALITY_FORMAT


def test_highest_first_ties_by_name_and_unknown_last() -> None:
    scores = {"d": 0.1, "c": 0.5, "b": None, "a": math.nan, "f": 0.5, "e": 0.0}
    for order in itertools.permutations(scores):
        assert rank({name: scores[name] for name in order}) == ["c", "f", "d", "e", "a", "b"]


def test_nothing_to_rank() -> None:
    assert rank({}) == []


def save(folder: Path, name: str, planes: object, sge: object = None, kind: str = QUALITY_FORMAT) -> None:
    content = {"format": kind, "plane_disagreement": {"mean_dice": planes}, "sge_disagreement": sge}
    (folder / f"{name}_quality.json").write_text(json.dumps(content))


def test_a_folder_of_predictions(tmp_path: Path) -> None:
    save(tmp_path, "sure", 0.9, {"mean_dice": 0.8})
    save(tmp_path, "unsure", 0.4, {"mean_dice": 0.6})
    save(tmp_path, "empty", None)
    (tmp_path / "sure_seg.nii.gz").touch()
    (tmp_path / ".0f-half_quality.json").write_text("{")  # of a writer at work
    scores = score_folder(tmp_path)
    assert scores == {"empty": None, "sure": pytest.approx(0.15), "unsure": pytest.approx(0.5)}
    assert rank(scores) == ["unsure", "sure", "empty"]
    assert score_folder(tmp_path, ["sge_disagreement"])["sure"] == pytest.approx(0.2)


def test_an_unknown_source_is_not_the_files_fault(tmp_path: Path) -> None:
    save(tmp_path, "scan", 0.5)
    with pytest.raises(InputError, match=r"^sources: found planes"):
        score_folder(tmp_path, ["planes"])


def test_a_folder_that_holds_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no NAME_quality\.json"):
        score_folder(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        score_folder(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "no readable JSON"),
        ("[1]", "another kind of JSON"),
        ('{"format": "other"}', "another kind of JSON"),
        (json.dumps({"format": QUALITY_FORMAT, "plane_disagreement": {"mean_dice": 7}}), "mean_dice: found 7"),
    ],
)
def test_a_file_at_fault_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "scan_quality.json").write_text(text)
    with pytest.raises(InputError, match=f"scan_quality.json.*{found}"):
        score_folder(tmp_path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "scan_quality.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"scan_quality\.json: found no readable JSON"):
        score_folder(tmp_path)
