"""The two streams: what a batch holds, the passes over each stream, epochs, resume, processes, and refusals."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import Dataset, MetaTensor
from monai.data.utils import set_rnd
from monai.transforms import Compose, RandFlipd, RandGaussianNoised
from torch.utils.data import DataLoader

from data_prep.simulate.cohort import simulate_cohort
from data_prep.simulate.settings import Settings
from grn_monai.data import (
    SliceDataset,
    TwoStreamBatchSampler,
    TwoStreamDataset,
    datalist,
    two_stream_collate,
    two_stream_slices,
)
from grn_monai.errors import InputError
from grn_monai.handlers import fingerprint

KEYS = {"subject", "scan", "plane", "index"}


def stream(n: int, first: int = 0, label: bool = True) -> Dataset:
    """Tiny items; the image's value is its number, the item's subject is its own."""
    items: list[dict[str, Any]] = []
    for i in range(first, first + n):
        items.append({"image": torch.full((1, 2, 2), float(i)), "subject": f"s{i}", "scan": f"s{i}_left"})
        if label:
            items[-1]["label"] = torch.zeros(1, 2, 2, dtype=torch.uint8)
    return Dataset(items)


def streams(labelled: int, unlabelled: int) -> TwoStreamDataset:
    return TwoStreamDataset(stream(labelled), stream(unlabelled, labelled, label=False))


def epochs(sampler: TwoStreamBatchSampler, *numbers: int) -> list[list[list[int]]]:
    batches = []
    for number in numbers:
        sampler.set_epoch(number)
        batches.append(list(sampler))
    return batches


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    settings = Settings(split=(4, 0, 0), split_scans=(4, 0, 0), shape=(16, 16, 32), seed=3)
    simulate_cohort(folder, settings, workers=1, progress=False)
    return folder


class TestDataset:
    def test_labelled_items_first_and_no_label_of_the_others(self) -> None:
        both = TwoStreamDataset(stream(3), stream(2, first=3))
        assert len(both) == 5
        assert [float(both[i]["image"][0, 0, 0]) for i in range(5)] == [0, 1, 2, 3, 4]
        assert ["label" in both[i] for i in range(5)] == [True] * 3 + [False] * 2
        assert [i["scan"] for i in both.data] == [f"s{n}_left" for n in range(5)]
        assert ["label" in i for i in both.data] == [True] * 3 + [False] * 2
        assert float(both[-1]["image"][0, 0, 0]) == 4
        for index in (5, -6):
            with pytest.raises(IndexError, match=f"image {index} of 5"):
                both[index]

    def test_set_rnd_reaches_the_transforms_of_both_streams(self, cohort: Path) -> None:
        def noise(*keys: str) -> Compose:
            return Compose([RandGaussianNoised(keys, prob=1.0), RandFlipd(keys, prob=0.5)])

        options: dict[str, Any] = {"size": (8, 8), "cache_dir": cohort / "cache"}
        both = TwoStreamDataset(
            SliceDataset(datalist(cohort, "training", fraction=0.5), transform=noise("image"), **options),
            SliceDataset(datalist(cohort, "unlabeled", fraction=0.5), transform=noise("image"), **options),
        )
        drawn = []
        for seed in (1, 1, 2):
            set_rnd(both, seed=seed)
            drawn.append([both[i]["image"].as_tensor() for i in (0, len(both) - 1)])
        for one, again, other in zip(*drawn, strict=True):
            assert torch.equal(one, again)
            assert not torch.equal(one, other)

    def test_a_subject_in_both_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"12 of the labelled subjects: s\d+.*and 2 more.*data_prep split"):
            TwoStreamDataset(stream(12), stream(20, label=False))
        same_scan = Dataset([{"image": "other/a.nii.gz"}])
        with pytest.raises(InputError, match="1 of the labelled subjects: a; "):
            TwoStreamDataset(Dataset([{"image": "a.nii.gz", "label": "l.nii.gz"}]), same_scan)

    def test_a_subject_in_both_on_request(self) -> None:
        """A labelled image serves as an unlabelled one too, and does not bring its label along."""
        both = TwoStreamDataset(stream(2), stream(3), overlap=True)
        assert [float(both[i]["image"][0, 0, 0]) for i in range(5)] == [0, 1, 0, 1, 2]
        assert ["label" in both[i] for i in range(5)] == [True] * 2 + [False] * 3
        assert ["label" in i for i in both.data] == [True] * 2 + [False] * 3
        batch = next(
            iter(DataLoader(both, batch_sampler=TwoStreamBatchSampler(both, 2, 3), collate_fn=two_stream_collate))
        )
        assert sorted(batch["image"][:, 0, 0, 0].tolist()) == [0, 1]
        assert sorted(batch["unlabeled"][:, 0, 0, 0].tolist()) == [0, 1, 2]
        assert "unlabeled_label" not in batch

    def test_slices_of_a_subject_in_both_on_request(self, cohort: Path) -> None:
        labelled, everyone = datalist(cohort, "training", fraction=0.5), datalist(cohort, "training")
        options: dict[str, Any] = {"size": (8, 8), "cache_dir": cohort / "cache"}
        with pytest.raises(InputError, match="no subject in both streams"):
            two_stream_slices(labelled, everyone, **options)
        both = two_stream_slices(labelled, everyone, overlap=True, **options)
        assert len(both.unlabelled) == 2 * len(both.labelled)
        assert "label" not in both[len(both.labelled)]

    def test_a_labelled_item_without_label_is_refused(self) -> None:
        labelled = Dataset([*stream(1).data, *stream(1, 1, label=False).data, {**stream(1, 2).data[0], "label": None}])
        with pytest.raises(InputError, match="no `label` in 2 of 3 items: s1_left, s2_left;"):
            TwoStreamDataset(labelled, stream(2, 5, label=False))


class TestSampler:
    def test_every_batch_has_both_halves_in_order_and_no_image_twice(self) -> None:
        sampler = TwoStreamBatchSampler(streams(10, 23), 3, 5)
        for batches in epochs(sampler, 1, 2, 3, 4):
            assert len(batches) == len(sampler) == 3
            for batch in batches:
                assert len(set(batch)) == len(batch) == 8
                assert all(0 <= i < 10 for i in batch[:3])
                assert all(10 <= i < 33 for i in batch[3:])

    def test_halves_are_equal_by_default(self) -> None:
        (batches,) = epochs(TwoStreamBatchSampler(streams(8, 8)), 1)
        assert [len(b) for b in batches] == [8, 8]

    def test_a_pass_takes_each_labelled_image_once_up_to_a_remainder_that_changes(self) -> None:
        sampler = TwoStreamBatchSampler(streams(11, 40), 4)
        left = set()
        for batches in epochs(sampler, *range(1, 9)):
            used = Counter(i for batch in batches for i in batch[:4])
            assert set(used.values()) == {1}
            assert len(used) == 8
            left.add(frozenset(set(range(11)) - set(used)))
        assert len(left) > 4

    def test_unlabelled_images_go_on_across_epochs(self) -> None:
        # A pass is 20 // 2 = 10 batches, an epoch 3 // 1 = 3: passes end inside of epochs 4, 7 and 10.
        sampler = TwoStreamBatchSampler(streams(3, 20), 1, 2)
        batches = [batch[1:] for epoch in epochs(sampler, *range(1, 11)) for batch in epoch]
        passes = [[i for batch in batches[start : start + 10] for i in batch] for start in (0, 10, 20)]
        assert [sorted(p) for p in passes] == [list(range(3, 23))] * 3
        assert len({tuple(p) for p in passes}) == 3, "a new order each time"

    def test_an_epoch_over_the_unlabelled_stream(self) -> None:
        for spelling in ("unlabelled", "unlabeled"):
            sampler = TwoStreamBatchSampler(streams(3, 20), 1, 2, epoch_over=spelling)
            assert len(sampler) == 10
            both = epochs(sampler, 1, 2, 3)
            assert all(sorted(i for b in batches for i in b[1:]) == list(range(3, 23)) for batches in both)
            labelled = [b[0] for batches in both for b in batches]
            assert [sorted(labelled[k : k + 3]) for k in range(0, 30, 3)] == [[0, 1, 2]] * 10
        assert len(TwoStreamBatchSampler(streams(3, 20), 1, 2, epoch_over="labeled")) == 3

    def test_the_order_depends_on_the_seed_alone(self) -> None:
        def order(seed: int) -> list[list[list[int]]]:
            torch.manual_seed(random.randrange(10**6))
            return epochs(TwoStreamBatchSampler(streams(9, 14), 2, 3, seed=seed), 1, 2)

        assert order(5) == order(5)
        orders = [tuple(map(tuple, order(seed)[0])) for seed in range(6)]
        assert len(set(orders)) == 6
        one, two = order(0)
        assert one != two
        same_size = TwoStreamBatchSampler(streams(30, 30), 30)
        ((batch,),) = epochs(same_size, 1)
        assert [i + 30 for i in batch[:30]] != batch[30:], "the streams have orders of their own"

    def test_no_global_generator_is_touched(self) -> None:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        list(TwoStreamBatchSampler(streams(9, 14), 2))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("epoch_over", ["labelled", "unlabelled"])
    def test_a_resumed_epoch_equals_that_of_a_running_sampler(self, epoch_over: str) -> None:
        data = streams(7, 17)
        running = epochs(TwoStreamBatchSampler(data, 2, 3, seed=4, epoch_over=epoch_over), 1, 2, 3)
        assert epochs(TwoStreamBatchSampler(data, 2, 3, seed=4, epoch_over=epoch_over), 3) == running[2:]

    def test_the_epoch_is_that_of_the_call(self) -> None:
        sampler = TwoStreamBatchSampler(streams(8, 8), 2)
        first = iter(sampler)
        assert list(sampler) == epochs(sampler, 1)[0]
        sampler.set_epoch(2)
        assert list(first) == epochs(sampler, 1)[0]
        with pytest.raises(ValueError, match="from 1"):
            sampler.set_epoch(0)

    @pytest.mark.parametrize("epoch_over", ["labelled", "unlabelled"])
    def test_processes_share_the_batches_of_one(self, epoch_over: str) -> None:
        data = streams(13, 29)
        whole = TwoStreamBatchSampler(data, 4, 6, seed=2, epoch_over=epoch_over)
        parts = [TwoStreamBatchSampler(data, 2, 3, 2, epoch_over, num_replicas=2, rank=r) for r in (0, 1)]
        assert {len(p) for p in parts} == {len(whole)}
        for epoch in (1, 2, 5):
            (expected,), ((first,), (second,)) = epochs(whole, epoch), (epochs(p, epoch) for p in parts)
            joined = [a[:2] + b[:2] + a[2:] + b[2:] for a, b in zip(first, second, strict=True)]
            assert joined == expected

    def test_the_process_group_is_asked_when_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sampler = TwoStreamBatchSampler(streams(6, 6), 2)
        assert len(sampler) == 3
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda *_: 3)
        monkeypatch.setattr("torch.distributed.get_rank", lambda *_: 2)
        assert len(sampler) == 1
        assert list(sampler) == list(TwoStreamBatchSampler(streams(6, 6), 2, num_replicas=3, rank=2))
        monkeypatch.setattr("torch.distributed.get_world_size", lambda *_: 4)
        with pytest.raises(InputError, match=r"labelled stream: found 6 images; .*4 processes with 2 each"):
            len(sampler)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"batch_size": 0}, "batch_size: found 0"),
            ({"batch_size": 1}, "batch_size: found 1; expected at least 2 unlabelled"),
            (
                {"unlabelled_batch_size": 1},
                r"unlabelled_batch_size: found 1; .* at least 2 .*method pairs them",
            ),
            ({"unlabelled_batch_size": 0, "min_unlabelled": 1}, "unlabelled_batch_size: found 0; expected at least 1"),
            ({"epoch_over": "both"}, "'both'; expected 'labelled' or 'unlabelled'"),
            ({"seed": -1}, "seed: found -1"),
            ({"batch_size": 6}, "the labelled stream: found 5 images.*Lower batch_size, raise fraction"),
            ({"unlabelled_batch_size": 8}, "the unlabelled stream: found 7 images.*Lower unlabelled_batch_size, lower"),
            ({"num_replicas": 2, "rank": 0}, r"the labelled stream.*one batch \(2 processes with 4 each\)"),
            ({"num_replicas": 2, "rank": 2}, "rank 2 of 2"),
        ],
    )
    def test_refusals(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(InputError, match=words):
            TwoStreamBatchSampler(streams(5, 7), **options)


class TestLoader:
    @pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
    def test_a_cohort_with_half_of_its_labels(self, cohort: Path, workers: int, persistent: bool) -> None:
        options: dict[str, Any] = {"size": (8, 8), "cache_dir": cohort / "cache"}
        data = TwoStreamDataset(
            SliceDataset(datalist(cohort, "training", fraction=0.5), **options),
            SliceDataset(datalist(cohort, "unlabeled", fraction=0.5), **options),
        )
        assert len({i["subject"] for i in data.data}) == 4
        assert len(fingerprint(data.data)) == 16
        sampler = TwoStreamBatchSampler(data, 3, 5)
        loader = DataLoader(
            data,
            batch_sampler=sampler,
            collate_fn=two_stream_collate,
            num_workers=workers,
            persistent_workers=persistent,
        )
        owners: tuple[set[str], set[str]] = (set(), set())
        for epoch in (1, 2):
            sampler.set_epoch(epoch)
            (expected,) = epochs(sampler, epoch)
            batches = list(loader)
            assert len(batches) == len(loader) == len(expected)
            for batch, indices in zip(batches, expected, strict=True):
                assert set(batch) == {"image", "label", "unlabeled"} | KEYS | {f"unlabeled_{k}" for k in KEYS}
                assert batch["image"].shape == batch["label"].shape == (3, 1, 8, 8)
                assert batch["unlabeled"].shape == (5, 1, 8, 8)
                assert torch.equal(batch["image"][1], data[indices[1]]["image"])
                assert torch.equal(batch["unlabeled"][4], data[indices[7]]["image"])
                assert batch["unlabeled_scan"] == [data[i]["scan"] for i in indices[3:]]
                assert batch["index"].tolist() == [data[i]["index"] for i in indices[:3]]
                owners[0].update(batch["subject"])
                owners[1].update(batch["unlabeled_subject"])
        assert [len(o) for o in owners] == [2, 2]
        assert not owners[0] & owners[1]

    def test_halves_are_told_apart_by_their_mark(self) -> None:
        data = streams(4, 4)
        batch = two_stream_collate([data[i] for i in (5, 0, 7, 3)])
        assert batch["image"][:, 0, 0, 0].tolist() == [0, 3]
        assert batch["unlabeled"][:, 0, 0, 0].tolist() == [5, 7]
        assert batch["unlabeled_subject"] == ["s5", "s7"]
        assert set(batch) == {"image", "label", "unlabeled", "subject", "scan", "unlabeled_subject", "unlabeled_scan"}

    def test_metatensors_become_plain_tensors(self) -> None:
        data = streams(2, 2)
        items = [{**data[i], "image": MetaTensor(data[i]["image"])} for i in range(4)]
        batch = two_stream_collate(items)
        assert type(batch["image"]) is type(batch["unlabeled"]) is torch.Tensor

    def test_refusals(self) -> None:
        data = streams(4, 4)
        with pytest.raises(InputError, match=r"2 labelled and 0 unlabelled images.*TwoStreamBatchSampler"):
            two_stream_collate([data[0], data[1]])
        with pytest.raises(InputError, match="an item of neither stream"):
            two_stream_collate([stream(1)[0]])
