"""The command line of `convert`: its files of label names and values, and how options reach the readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import data_prep.convert.cohort as cohort
from data_prep.cli import main
from data_prep.convert.cohort import Summary
from data_prep.convert.plan import Request

Run = Callable[..., tuple[int, str, Path]]


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("--label-names", {"²": "bone"}),
        ("--label-names", {"256": "bone"}),
        ("--label-names", {"1": " "}),
        ("--label-names", {"1": "bone", "01": "fat"}),
        ("--label-values", {"1": True}),
        ("--label-values", {"one": 1}),
        ("--label-values", {"1": 1, "1.0": 2}),
        ("--label-values", [1]),
    ],
)
def test_faulty_label_files_are_one_error(convert: Run, tmp_path: Path, option: str, content: Any) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "labels.json").write_text(json.dumps(content))
    code, said, _ = convert(option, tmp_path / "labels.json")
    assert code == 2
    assert "labels.json: found" in said


def test_options_reach_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Request] = []

    def record(request: Request) -> Summary:
        requests.append(request)
        return Summary()

    monkeypatch.setattr(cohort, "convert_cohort", record)
    (tmp_path / "values.json").write_text('{"2.0": 1, "bone.nii.gz": 2}')
    arguments = ["convert", str(tmp_path), str(tmp_path / "out"), "--label-values", str(tmp_path / "values.json")]
    assert main([*arguments, "--colour", "luminance", "--mask-order", "rows-first", "--whole-frame"]) == 0
    assert main(arguments) == 0
    told, untold = (request.options for request in requests)
    assert (told.colour, told.mask_order, told.whole_frame) == ("luminance", "rows-first", True)
    assert (untold.colour, untold.mask_order, untold.whole_frame) == (None, None, None)
    assert requests[0].label_values == {"2": 1, "bone.nii.gz": 2}
