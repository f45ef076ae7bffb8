"""SliceDataset against the volume transforms, its cache, its workers, and its refusals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.losses import DiceLoss
from monai.transforms import Compose, RandFlipd

import grn_monai.data.cache as cache_module
from grn_monai.data import SliceDataset
from grn_monai.errors import InputError
from grn_monai.transforms import DepthLastd, LoadScand, ScaleEchod, VolumeToSlices
from tests.data.test_volume import grey, save

SHAPES = ((6, 9, 12), (5, 7, 10))
AXIS = {"depth_axis": 0, "depth_reversed": True}


@pytest.fixture
def data(tmp_path: Path) -> list[dict[str, str]]:
    items = []
    for n, shape in enumerate(SHAPES):
        image = np.random.default_rng(n).integers(0, 256, shape).astype(np.uint8)
        save(tmp_path / f"s{n}.nii.gz", image if n == 0 else image.astype(np.float32) * 3.5 - 100)
        save(tmp_path / f"l{n}.nii.gz", np.random.default_rng(n).integers(0, 7, shape).astype(np.uint8))
        items.append({"image": str(tmp_path / f"s{n}.nii.gz"), "label": str(tmp_path / f"l{n}.nii.gz")})
    items[1].update(subject="p7", scan="p7_left")
    return items


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files decoded so far."""
    seen: list[str] = []
    read = cache_module.read_volume

    def spy(path: str, *args: object) -> object:
        seen.append(str(path))
        return read(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "read_volume", spy)
    return seen


def reference(item: dict[str, str], plane: str, size: tuple[int, int] | None) -> tuple[torch.Tensor, torch.Tensor]:
    chain = Compose([LoadScand(("image", "label")), DepthLastd(("image", "label"), 0, True), ScaleEchod("image")])
    volumes = chain(dict(item))
    return (
        VolumeToSlices(plane, size)(volumes["image"]).as_tensor(),
        VolumeToSlices(plane, size, "nearest")(volumes["label"]).as_tensor(),
    )


@pytest.mark.parametrize("size", [(16, 16), None, (8, 5)])
def test_slices_equal_those_of_the_volume_transforms(data: list, size: tuple[int, int] | None) -> None:
    slices = SliceDataset(data, size=size, **AXIS)
    at = 0
    for number, item in enumerate(data):
        for plane in ("sagittal", "transverse"):
            images, labels = reference(item, plane, size)
            for index in range(len(images)):
                got = slices[at]
                # float16 keeps 1/2048 of a value in [-1, 1]
                torch.testing.assert_close(got["image"], images[index], atol=1e-6 if number == 0 else 5e-4, rtol=0)
                assert torch.equal(got["label"], labels[index])
                assert (got["plane"], got["index"]) == (plane, index)
                at += 1
    assert at == len(slices) == (9 + 12) + (7 + 10)


def test_types_names_and_counts(data: list) -> None:
    slices = SliceDataset([*data, {"image": data[0]["image"]}], **AXIS)
    first, other, unlabelled = slices[0], slices[21], slices[-1]
    assert type(first["image"]) is type(first["label"]) is torch.Tensor
    assert (first["image"].dtype, first["label"].dtype) == (torch.float32, torch.uint8)
    assert first["image"].shape == first["label"].shape == (1, 256, 256)
    assert -1 <= float(first["image"].min()) < float(first["image"].max()) <= 1
    assert (first["subject"], first["scan"]) == ("s0", "s0")
    assert (other["subject"], other["scan"]) == ("p7", "p7_left")
    assert "label" not in unlabelled
    assert slices.describe() == {"scans": 3, "labelled": 2, "slices": 59, "sagittal": 25, "transverse": 34}
    assert slices.data[1]["subject"] == "p7"


def test_step_and_single_plane(data: list) -> None:
    slices = SliceDataset(data, planes=("transverse",), step=4, **AXIS)
    assert [slices.locate(i) for i in range(len(slices))] == [
        (0, "transverse", 0), (0, "transverse", 4), (0, "transverse", 8),
        (1, "transverse", 0), (1, "transverse", 4), (1, "transverse", 8),
    ]  # fmt: skip
    whole = SliceDataset(data, planes=("transverse",), **AXIS)
    assert torch.equal(slices[2]["image"], whole[8]["image"])


def test_a_single_slice_is_cut_in_its_own_plane_only(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (9, 1, 12)).astype(np.uint8)
    save(tmp_path / "one.nii.gz", voxels)
    item = {"image": str(tmp_path / "one.nii.gz")}
    data = SliceDataset([item], size=None)
    assert data.describe()["slices"] == len(data) == 1
    assert data[0]["plane"] == "transverse"
    np.testing.assert_allclose(data[0]["image"][0], voxels[:, 0].T / 127.5 - 1, atol=1e-6)
    with pytest.raises(InputError, match="planes"):
        SliceDataset([item], planes=["sagittal"])


def test_index_errors(data: list) -> None:
    slices = SliceDataset(data, **AXIS)
    assert torch.equal(slices[-1]["image"], slices[len(slices) - 1]["image"])
    for index in (len(slices), -len(slices) - 1):
        with pytest.raises(IndexError, match=f"slice {index}"):
            slices[index]
    assert sum(1 for _ in slices) == len(slices), "iteration ends"


def test_each_volume_is_decoded_once_and_only_when_needed(data: list, decodes: list[str], tmp_path: Path) -> None:
    slices = SliceDataset(data, cache_dir=tmp_path / "cache", max_open=2, **AXIS)
    assert decodes == []
    slices[0]
    assert decodes == [data[0]["image"], data[0]["label"]], "one slice, one scan"
    for _ in range(3):
        for i in (0, 30, 5, 37):
            slices[i]
    SliceDataset(data, cache_dir=tmp_path / "cache", **AXIS)[30]
    assert sorted(decodes) == sorted(item[key] for item in data for key in ("image", "label"))
    assert len(slices.cache._open) == 2


def test_worker_that_waited_for_another_does_not_decode_again(data: list, decodes: list[str], tmp_path: Path) -> None:
    slices = SliceDataset(data, cache_dir=tmp_path / "cache", **AXIS)
    slices[0]
    slices.cache._fill(data[0]["image"], "image", slices.cache.entry(data[0]["image"], "image"))
    assert len(decodes) == 2
    with pytest.raises(InputError, match=r"gone\.nii: found no such file"):
        slices.cache.entry(tmp_path / "gone.nii", "image")


def test_entries_follow_source_and_options(data: list, decodes: list[str], tmp_path: Path) -> None:
    options = {"cache_dir": tmp_path / "cache", "size": None}
    before = SliceDataset(data[:1], **options)[0]["image"]
    assert len(decodes) == 2
    assert not torch.equal(SliceDataset(data[:1], **options, depth_axis=1)[0]["image"], before)
    assert SliceDataset(data[:1], **options, mode="percentile")[0]["image"].shape == before.shape
    assert len(decodes) == 5, "the label does not depend on the scale of the image"
    os.utime(data[0]["image"], ns=(time.time_ns(), time.time_ns() + 10**9))
    save(Path(data[0]["image"]), 255 - grey(SHAPES[0]))
    after = SliceDataset(data[:1], **options)[0]["image"]
    np.testing.assert_allclose(after[0].numpy(), (255 - grey(SHAPES[0])[0].T) / 127.5 - 1, atol=1e-6)


def test_eight_bit_volume_is_kept_in_eight_bits(data: list, tmp_path: Path) -> None:
    slices = SliceDataset(data, cache_dir=tmp_path / "cache", **AXIS)
    for i in range(len(slices)):
        slices[i]
    files = sorted((tmp_path / "cache").glob("*.npy"))
    kinds = sorted(str(np.load(f, mmap_mode="r").dtype) for f in files)
    assert kinds == ["float16", "uint8", "uint8", "uint8"]


def test_entry_cut_short_is_made_again(data: list, tmp_path: Path) -> None:
    options = {"cache_dir": tmp_path / "cache", **AXIS}
    expected = SliceDataset(data, **options)[3]["image"]
    for file in (tmp_path / "cache").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:150])
    assert torch.equal(SliceDataset(data, **options)[3]["image"], expected)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_agree_with_the_main_process(data: list, context: str, tmp_path: Path) -> None:
    slices = SliceDataset(data, size=(16, 16), cache_dir=tmp_path / "cache", **AXIS)
    expected = torch.stack([SliceDataset(data, size=(16, 16), **AXIS)[i]["image"] for i in range(len(slices))])
    loader = torch.utils.data.DataLoader(slices, batch_size=5, num_workers=2, multiprocessing_context=context)
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), expected)
    left = {f.suffix for f in (tmp_path / "cache").iterdir()}
    assert left <= {".npy", ".lock"}, "no temporary file is left"
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4


def test_pickle_holds_no_voxels(tmp_path: Path) -> None:
    image = save(tmp_path / "big.nii", grey((64, 64, 64)))
    slices = SliceDataset([{"image": str(image)}])
    slices[0]
    data = pickle.dumps(slices)
    assert len(data) < 10_000
    assert torch.equal(pickle.loads(data)[5]["image"], slices[5]["image"])


def test_temporary_folder_goes_with_the_process(data: list) -> None:
    script = (
        "import os, sys\nfrom grn_monai.data import SliceDataset\n"
        f"s = SliceDataset({data!r}); s[0]\n"
        "pid = os.fork()\n"
        "if pid == 0: sys.exit(0)\n"  # a child that runs its exit handlers must leave the folder alone
        "os.waitpid(pid, 0); s.cache._open.clear(); s[0]; print(s.cache.folder)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert folder.name.startswith("grn-monai-slices-")
    assert not folder.exists()


def test_transform_and_loss_take_the_items(data: list) -> None:
    slices = SliceDataset(
        data, size=(32, 32), transform=[RandFlipd(("image", "label"), prob=1.0, spatial_axis=1)], **AXIS
    )
    plain = SliceDataset(data, size=(32, 32), **AXIS)
    assert torch.equal(slices[4]["image"].as_tensor(), plain[4]["image"].flip(-1))
    batch = next(iter(DataLoader(plain, batch_size=3, num_workers=0)))
    logits = 50 * torch.nn.functional.one_hot(batch["label"][:, 0].long(), 7).movedim(-1, 1).float()
    loss = DiceLoss(to_onehot_y=True, softmax=True)
    assert float(loss(logits, batch["label"])) < 1e-3
    assert float(loss(logits.roll(1, 1), batch["label"])) > 0.9


def test_refusals_at_construction(data: list, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no scans.*Check the section"):
        SliceDataset([])
    with pytest.raises(InputError, match="item 1 without a file name for 'image'"):
        SliceDataset([data[0], {"label": data[0]["label"]}])
    with pytest.raises(InputError, match="'coronal'"):
        SliceDataset(data, planes=("coronal",))
    with pytest.raises(InputError, match="step"):
        SliceDataset(data, step=0)
    with pytest.raises(InputError, match="depth_axis"):
        SliceDataset(data, depth_axis=5)
    with pytest.raises(InputError, match=r"l1\.nii\.gz: found shape.*Resample the label"):
        SliceDataset([{"image": data[0]["image"], "label": data[1]["label"]}])
    (tmp_path / "empty.nii.gz").touch()
    with pytest.raises(InputError, match=r"empty\.nii\.gz.*0 bytes"):
        SliceDataset([{"image": str(tmp_path / "empty.nii.gz")}])


def test_refusals_at_first_touch(tmp_path: Path) -> None:
    wrong = save(tmp_path / "l.nii", np.full((5, 6, 7), 9, np.uint8))
    slices = SliceDataset([{"image": str(save(tmp_path / "s.nii", grey())), "label": str(wrong)}])
    with pytest.raises(InputError, match=r"l\.nii.*unknown label values 9"):
        slices[0]
    (tmp_path / "a_file").touch()
    slices = SliceDataset([{"image": str(tmp_path / "s.nii")}], cache_dir=tmp_path / "a_file")
    with pytest.raises(InputError, match=r"a_file.*set cache_dir"):
        slices[0]


def test_error_in_a_worker_names_the_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((5, 6, 7), np.nan, np.float32), np.eye(4)), tmp_path / "s.nii")
    slices = SliceDataset([{"image": str(tmp_path / "s.nii")}])
    with pytest.raises((InputError, RuntimeError), match=r"InputError: .*s\.nii: found 210 voxels that are NaN"):
        next(iter(torch.utils.data.DataLoader(slices, num_workers=1)))
