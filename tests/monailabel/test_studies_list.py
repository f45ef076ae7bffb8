"""The datastore on a folder of scans: its images, and its list, whatever a kill or another process leaves."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from monailabel.config import Settings

from grn_monai.errors import InputError
from grn_monai.monailabel.studies import LayersDatastore, make_studies
from tests.monailabel.folder_use import final, nifti, studies, values


@pytest.mark.parametrize("image", ["..", ".", "../x", "a/b", "a\\b", ".a", "a\x00", "x" * 300])
def test_images_have_plain_names(store: LayersDatastore, uploads: Path, image: str) -> None:
    scan = Path(store.get_image_uri("a")).read_bytes()
    for call in (store.add_image, lambda i, f, _: store.save_label(i, f, "final", {})):
        (uploads / "t.nii.gz").write_bytes(scan)
        with pytest.raises(InputError, match=r"image: found .* a plain file name"):
            call(image, str(uploads / "t.nii.gz"), {})
        assert list(uploads.iterdir()) == []
    assert sorted(p.name for p in uploads.parent.rglob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]


def test_images_can_be_added(store: LayersDatastore, uploads: Path) -> None:
    scan = Path(store.get_image_uri("a")).read_bytes()
    (uploads / "t.nii.gz").write_bytes(scan)
    assert store.add_image("c.1", str(uploads / "t.nii.gz"), {"user": "site"}) == "c.1"
    assert Path(store.get_image_uri("c.1")).read_bytes() == scan
    assert store.get_image_info("c.1")["user"] == "site"
    assert sorted(studies(Path(store._datastore_path)).list_images()) == ["a", "b", "c.1"]
    (uploads / "t.nii.gz").write_text("nothing")
    with pytest.raises(InputError, match="image d: found a file that cannot be decoded"):
        store.add_image("d", str(uploads / "t.nii.gz"), {})
    assert list(uploads.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text[:90], lambda text: "{}", lambda text: "\udcff"])
def test_a_damaged_list_is_made_again(
    store: LayersDatastore, uploads: Path, damage: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    store.save_label("a", nifti(uploads / "t.nii.gz", values()), "final", {})
    path = Path(store._datastore_config_path)
    for number in (1, 2):
        damaged = damage(path.read_text()).encode(errors="surrogateescape")
        path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again = studies(path.parent)
        assert f"is damaged, by a kill or a full disk; it is kept as {path.name}.damaged-{number}" in caplog.text
        assert path.with_name(f"{path.name}.damaged-{number}").read_bytes() == damaged
        assert sorted(again.list_images()) == ["a", "b"]
        assert again.get_labeled_images() == ["a"]
        assert np.array_equal(final(again), values())
        assert set(json.loads(path.read_text())["objects"]) == {"a", "b"}
    path.write_text("")
    with pytest.raises(InputError, match=r"a damaged file; .* MONAI_LABEL_DATASTORE_READ_ONLY"):
        studies(path.parent, MONAI_LABEL_DATASTORE_READ_ONLY=True)


def test_the_list_is_never_half_written(store: LayersDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(store._datastore_config_path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        store.update_image_info("a", {"x": 1})
    assert path.read_bytes() == before


def test_half_written_files_are_no_images(store: LayersDatastore) -> None:
    folder = Path(store._datastore_path)
    (folder / ".0123-a.nii.gz").write_bytes(b"half")
    store.refresh()
    assert sorted(store.list_images()) == ["a", "b"]


def test_an_image_that_came_since_is_found(store: LayersDatastore) -> None:
    folder = Path(store._datastore_path)
    assert not store.has_image("c")
    (folder / "c.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes())
    assert store.has_image("c")
    assert "c" in store.list_images()
    (folder / "c.nii.gz").unlink()
    assert not store.has_image("c")


def test_what_another_process_saves_is_seen(store: LayersDatastore, uploads: Path) -> None:
    """Background tasks have a datastore of their own; the server's looks out for changes of the list."""
    watching = make_studies(store._datastore_path, Settings(MONAI_LABEL_DATASTORE_AUTO_RELOAD=True))
    try:
        store.save_label("a", nifti(uploads / "t.nii.gz", values()), "original", {"model": "m"})
        end = time.monotonic() + 10
        while time.monotonic() < end and watching.get_label_info("a", "original").get("model") != "m":
            time.sleep(0.05)
        assert watching.get_label_info("a", "original")["model"] == "m"
    finally:
        watching._observer.stop()


def test_what_another_process_saved_is_not_overwritten(store: LayersDatastore, uploads: Path) -> None:
    other = studies(Path(store._datastore_path))
    time.sleep(0.02)  # the list is known by its time of change
    store.save_label("a", nifti(uploads / "t.nii.gz", values()), "original", {"model": "m"})
    other.update_image_info("b", {"x": 1})
    time.sleep(0.02)
    store.save_label("b", nifti(uploads / "t.nii.gz", values()), "final", {})
    again = studies(Path(store._datastore_path))
    assert again.get_label_info("a", "original")["model"] == "m"
    assert again.get_image_info("b")["x"] == 1
    assert again.get_labeled_images() == ["b"]
