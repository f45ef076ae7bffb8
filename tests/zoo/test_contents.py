from __future__ import annotations

from pathlib import Path

import pytest

from grn_monai.errors import InputError
from grn_monai.zoo import pack_bundle
from tests.zoo.conftest import BUNDLE, spoiled


def test_only_what_the_bundles_know_or_the_page_names_is_packed(tmp_path: Path) -> None:
    bundle = spoiled(tmp_path)
    for name in ("configs/notes.txt", "configs/mine.yaml", "configs/other.yaml", "docs/a.png", "docs/b.png", "key.pem"):
        (bundle / name).write_text("a: 1\n")
    (bundle / "configs" / "old").mkdir()
    (bundle / "configs" / "old" / "train.yaml").write_text("a: 1\n")
    page = bundle / "docs" / "README.md"
    page.write_text(page.read_text() + "\n![one](a.png), made with `configs/mine.yaml`\n")
    made = pack_bundle(bundle, tmp_path / "dist", weights=False)
    added = {"configs/mine.json", "docs/a.png"}
    before = {entry.partition("/")[2] for entry in pack_bundle(BUNDLE, tmp_path / "dist", weights=False)["entries"]}
    assert {entry.partition("/")[2] for entry in made["entries"]} - before == added
    assert made["left_out"] == ["configs/notes.txt", "configs/old/train.yaml", "configs/other.yaml", "docs/b.png"]


@pytest.mark.parametrize("name", ["configs/no_sge.yaml", "docs/data_license.txt", "LICENSE", "docs"])
def test_links_are_refused(name: str, tmp_path: Path) -> None:
    bundle = spoiled(tmp_path)
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"symbolic links \({name}\)"):
        pack_bundle(bundle, tmp_path / "dist", weights=False)
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (
            "train.yaml",
            "dataset_dir: $@bundle_root + '/cohort'",
            "dataset_dir: /srv/scans",
            "train.yaml: found dataset_dir: '/srv/scans'",
        ),
        (
            "train.yaml",
            "dataset_dir: $@bundle_root + '/cohort'",
            "dataset_dir: C:\\scans",
            "train.yaml: found dataset_dir: 'C:",
        ),
        (
            "inference.yaml",
            "split: dataset.json",
            "split: $'/home/me/' + 'd.json'",
            "inference.yaml: found split: '/home/me/'",
        ),
        (
            "inference.yaml",
            "split: dataset.json",
            "split: $str('a') + str('/home/me/d.json')",
            "split: '/home/me/d.json'",
        ),
        ("no_sge.yaml", "sge: false", "sge: false\nextra: {a: [1, ~/x]}", "no_sge.yaml: found extra#a#1: '~/x'"),
        (
            "metadata.json",
            "none shipped: sim",
            "/data/patients: sim",
            'metadata.json: found data_source: "/data/patients',
        ),
        ("logging.conf", "args=(sys.stdout,)", "args=('/var/log/me.log',)", "logging.conf: found line"),
    ],
)
def test_paths_of_one_machine_are_refused(file: str, old: str, new: str, words: str, tmp_path: Path) -> None:
    bundle = spoiled(tmp_path)
    config = bundle / "configs" / file
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(InputError) as info:
        pack_bundle(bundle, tmp_path / "dist", weights=False)
    assert words in str(info.value)
