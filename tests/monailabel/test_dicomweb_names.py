"""UIDs that an archive sends become names of files and folders."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")
pytest.importorskip("highdicom", reason="DICOM segmentations need highdicom")
try:
    from grn_monai.monailabel.archive import Archive, ArchiveError, Series, check_uid
except ImportError as error:  # pydicom-seg on pydicom 3 without the module that docs/dicomweb.md names
    pytest.skip(f"MONAI Label's own DICOM modules cannot be imported: {error}", allow_module_level=True)

from pydicom import Dataset

BAD = ["", ".", "..", "../../x", "1/2", "1.2.", ".1", "1..2", "1.2\n", "1.2a", "1" * 65, "١"]


class Downloaded(Dataset):
    def save_as(self, path: Any, *_: Any, **__: Any) -> None:  # type: ignore[override]
        Path(path).write_bytes(b"dicom")


def archive(**answers: Any) -> Archive:
    made = Archive("http://127.0.0.1:9/dicom-web")
    made.client = SimpleNamespace(**answers)
    return made


@pytest.mark.parametrize("uid", BAD)
def test_uids_are_numbers_with_dots(uid: str) -> None:
    with pytest.raises(ArchiveError, match=r"http://x: found the UID .*; expected a DICOM UID"):
        check_uid(uid, "http://x")


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008", "2.25." + "3" * 59])
def test_uids(uid: str) -> None:
    assert check_uid(uid, "http://x") == uid


def test_a_series_with_another_name_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def item(uid: str, study: str) -> dict[str, Any]:
        return {"0020000E": {"Value": [uid]}, "0020000D": {"Value": [study]}, "00080060": {"Value": ["US"]}}

    page = [item("..", "1.2"), item("1.3", "../studies"), item("1.4", "1.2")]
    with caplog.at_level(logging.WARNING):
        found = archive(search_for_series=lambda **_: page).find({})
    assert [series.uid for series in found] == ["1.4"]
    assert caplog.text.count("a series is left out") == 2


@pytest.mark.parametrize("uid", ["../../outside", ".."])
def test_a_file_stays_in_its_folder(tmp_path: Path, uid: str) -> None:
    datasets = [Downloaded(), Downloaded()]
    # pydicom itself takes any text.
    datasets[0].SOPInstanceUID, datasets[1].SOPInstanceUID = "1.2.3", uid
    asked = archive(iter_series=lambda *_, **__: iter(datasets))
    folder = tmp_path / "cache" / "dicom" / "1.5"
    with pytest.raises(ArchiveError, match="the UID "):
        asked.download(Series("1.5", "1.2", "US", 2, ""), folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
