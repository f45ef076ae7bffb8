"""Labelled and unlabelled images side by side, for semi-supervised training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from monai.data.meta_tensor import MetaTensor
from torch.utils.data import Dataset, Sampler, default_collate

from grn_monai.data.names import item_names
from grn_monai.data.slices import SliceDataset
from grn_monai.errors import InputError, listed

__all__ = ["TwoStreamBatchSampler", "TwoStreamDataset", "two_stream_collate", "two_stream_slices"]

_STREAM = "_stream"
_STREAMS = ("labelled", "unlabelled")
_SPELLINGS = {"labelled": 0, "labeled": 0, "unlabelled": 1, "unlabeled": 1}


class _Items(Protocol):
    """A map-style data set that keeps the list of what it reads."""

    @property
    def data(self) -> Sequence[Mapping[str, Any]]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class TwoStreamDataset(Dataset[dict[str, Any]]):
    """A labelled and an unlabelled data set as one: first all labelled images, then all unlabelled ones.

    Each item carries a mark of its stream, by which `two_stream_collate` tells the halves of a batch apart. Random
    transforms of both streams are seeded by :class:`grn_monai.handlers.SeedEpochs` when it is given this data set.

    Args:
        labelled: a :class:`grn_monai.data.SliceDataset`, or another map-style data set with its items in ``data``.
        unlabelled: the same without labels; labels that it has are left out. Its transform must not ask for a
            ``"label"`` (MONAI's dictionary transforms: ``allow_missing_keys=True``).
        overlap: a subject may be in both streams: labelled images serve as unlabelled ones too.

    Attributes:
        data: the items of both, labelled ones first; unlabelled ones without ``"label"``.

    Raises:
        InputError: a labelled item has no label, or without ``overlap`` a subject is in both streams (the labelled
            share is one of subjects: such a one would be both).
    """

    def __init__(self, labelled: _Items, unlabelled: _Items, overlap: bool = False) -> None:
        self.labelled = labelled
        self.unlabelled = unlabelled
        without = [item_names(item)[1] for item in labelled.data if item.get("label") is None]
        if without:
            raise InputError(
                "labelled",
                f"no `label` in {len(without)} of {len(labelled.data)} items: {listed(without)}",
                "a label for each labelled scan",
                "Move these scans to `unlabeled`, or give their labels.",
            )
        subjects, others = ({item_names(item)[0] for item in stream.data} for stream in (labelled, unlabelled))
        if (both := sorted(subjects & others)) and not overlap:
            raise InputError(
                "unlabelled",
                f"{len(both)} of the labelled subjects: {listed(both)}",
                "no subject in both streams",
                "Choose the labelled share by whole subjects: make the split again with `python -m data_prep split`, "
                "without `--by image`, or take these subjects' scans out of `unlabeled`.",
            )
        bare = [{key: value for key, value in item.items() if key != "label"} for item in unlabelled.data]
        self.data: list[Mapping[str, Any]] = [*labelled.data, *bare]

    def __len__(self) -> int:
        return len(self.labelled) + len(self.unlabelled)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image: what its stream gives, plus the stream's mark; no ``"label"`` from the unlabelled stream.

        Raises:
            IndexError: there is no such image.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        first = len(self.labelled)
        if index < first:
            return {**self.labelled[index], _STREAM: 0}
        return {**{k: v for k, v in self.unlabelled[index - first].items() if k != "label"}, _STREAM: 1}


def two_stream_slices(
    data: Sequence[Mapping[str, Any]], unlabelled: Sequence[Mapping[str, Any]], overlap: bool = False, **options: Any
) -> TwoStreamDataset:
    """Slices of labelled and of unlabelled scans, cut alike; for a bundle's config.

    Args:
        data: labelled items, under the name by which MONAI Label sets them in any bundle.
        unlabelled: unlabelled items; labels that they have are not read.
        overlap: as in `TwoStreamDataset`.
        **options: as in :class:`grn_monai.data.SliceDataset`, for both.

    Raises:
        InputError: as `TwoStreamDataset` and `SliceDataset` do.
    """
    bare = [{key: value for key, value in item.items() if key != "label"} for item in unlabelled]
    return TwoStreamDataset(SliceDataset(data, **options), SliceDataset(bare, **options), overlap)


class TwoStreamBatchSampler(Sampler[list[int]]):
    """Batches of ``batch_size`` labelled images followed by ``unlabelled_batch_size`` unlabelled ones.

    Each stream is an endless sequence of passes. A pass is a permutation of the stream's own, drawn from
    ``(seed, stream, number of the pass)``, cut into whole batches; the images left over, others in each pass, wait for
    the next one, so that no batch holds an image twice. An epoch is one pass over the stream that `epoch_over` names;
    the other stream goes on where the epoch before left it. What the batch at position ``i`` of epoch ``e`` holds is
    a function of ``(seed, e, i)`` alone: a resumed run needs ``set_epoch`` and no saved state.

    With several processes the batch is ``num_replicas`` times as large and each process takes its contiguous share of
    both halves: two processes with batches of 2 see together what one process sees with batches of 4.

    Args:
        dataset: the two streams.
        batch_size: labelled images in a batch of this process, from 1.
        unlabelled_batch_size: unlabelled images in a batch of this process, from ``min_unlabelled``; by default as many
            as labelled ones.
        seed: the run's seed, from 0, the same in every process.
        epoch_over: ``"labelled"`` or ``"unlabelled"`` (one l will do, too).
        num_replicas: processes; by default those of ``torch.distributed``, asked when the sampler is used, since a
            config may build it before the process group.
        rank: number of this process; by default that of ``torch.distributed``.
        min_unlabelled: fewest unlabelled images that the method trains with: 2 where it pairs them.

    Raises:
        InputError: an option outside its range, or (at construction or, with more processes, at the first use) a
            stream with fewer images than one batch of all processes.
    """

    def __init__(
        self,
        dataset: TwoStreamDataset,
        batch_size: int = 4,
        unlabelled_batch_size: int | None = None,
        seed: int = 0,
        epoch_over: str = "labelled",
        num_replicas: int | None = None,
        rank: int | None = None,
        min_unlabelled: int = 2,
    ) -> None:
        if batch_size < 1:
            raise InputError("batch_size", repr(batch_size), "a whole number from 1", "Correct the option.")
        share = batch_size if unlabelled_batch_size is None else unlabelled_batch_size
        if share < min_unlabelled:
            where = "batch_size" if unlabelled_batch_size is None else "unlabelled_batch_size"
            why = " (the method pairs them)" if min_unlabelled > 1 else ""
            expected = f"at least {min_unlabelled} unlabelled images in a batch{why}"
            raise InputError(where, repr(share), expected, "Raise it.")
        if epoch_over not in _SPELLINGS:
            raise InputError("epoch_over", repr(epoch_over), "'labelled' or 'unlabelled'", "Correct the option.")
        if seed < 0:
            raise InputError("seed", repr(seed), "a whole number from 0", "Correct the option.")
        self.batch_sizes = (batch_size, share)
        self.sizes = (len(dataset.labelled), len(dataset.unlabelled))
        self.seed = seed
        self.epoch_over = _SPELLINGS[epoch_over]
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 1
        self._batches_of_passes()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is; epochs count from 1, as ignite's ``state.epoch`` does.

        Raises:
            ValueError: an epoch below 1.
        """
        if epoch < 1:
            raise ValueError(f"epochs count from 1, got {epoch}")
        self.epoch = epoch

    def __len__(self) -> int:
        return self._batches_of_passes()[self.epoch_over]

    def __iter__(self) -> Iterator[list[int]]:
        # Not a generator itself: the epoch is that of the call, not that of the first batch asked for.
        return self._epoch(self.epoch)

    def _epoch(self, epoch: int) -> Iterator[list[int]]:
        counts = self._batches_of_passes()
        replicas, rank = self._world()
        passes, orders = [-1, -1], [np.empty(0, int)] * 2
        for step in range((epoch - 1) * counts[self.epoch_over], epoch * counts[self.epoch_over]):
            batch: list[int] = []
            for stream, (size, count) in enumerate(zip(self.batch_sizes, counts, strict=True)):
                number, position = divmod(step, count)
                if number != passes[stream]:
                    passes[stream], orders[stream] = number, self._order(stream, number)
                start = (position * replicas + rank) * size
                batch += orders[stream][start : start + size].tolist()
            yield batch

    def _order(self, stream: int, number: int) -> np.ndarray:
        """The indices of a stream in the order of one of its passes."""
        # spawn_key, not a longer list: those are the seeds of SeedEpochs.
        seed = int(np.random.SeedSequence(self.seed, spawn_key=(stream, number)).generate_state(1)[0])
        # A generator of its own: SeedEpochs seeds the common one otherwise in each process, and all must draw the same.
        order = torch.randperm(self.sizes[stream], generator=torch.Generator().manual_seed(seed)).numpy()
        return order + self.sizes[0] * stream

    def _world(self) -> tuple[int, int]:
        known = dist.is_available() and dist.is_initialized()
        replicas = self.num_replicas if self.num_replicas is not None else dist.get_world_size() if known else 1
        rank = self.rank if self.rank is not None else dist.get_rank() if known else 0
        if not 0 <= rank < replicas:
            found = f"rank {rank} of {replicas} processes"
            raise InputError("num_replicas", found, "a rank from 0 below num_replicas", "Give both, or neither.")
        return replicas, rank

    def _batches_of_passes(self) -> tuple[int, int]:
        """How many batches a pass over each stream has."""
        replicas, _ = self._world()
        counts = []
        for name, n, size in zip(_STREAMS, self.sizes, self.batch_sizes, strict=True):
            if n < replicas * size:
                each = f"{replicas} processes with {size} each" if replicas > 1 else f"{size}"
                option = "batch_size" if name == "labelled" else "unlabelled_batch_size"
                raise InputError(
                    f"the {name} stream",
                    f"{n} images",
                    f"at least one batch ({each})",
                    f"Lower {option}, {'raise' if name == 'labelled' else 'lower'} fraction, or use more scans.",
                )
            counts.append(n // (replicas * size))
        return counts[0], counts[1]


def two_stream_collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the items of one batch, each half by itself; the ``collate_fn`` beside `TwoStreamBatchSampler`.

    Args:
        items: items of a `TwoStreamDataset`, in any order.

    Returns:
        ``"image"`` ``(B_l, 1, H, W)``, ``"label"`` ``(B_l, 1, H, W)`` and the lists or tensors of the other keys
        (``"subject"``, ``"scan"``, ``"plane"``, ``"index"``) of the labelled half, in the order of the items; of the
        unlabelled half ``"unlabeled"`` ``(B_u, 1, H, W)`` and the other keys behind ``unlabeled_``
        (``"unlabeled_scan"``, …). Plain tensors.

    Raises:
        InputError: items without a mark of their stream, or a half without items.
    """
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for item in items:
        if _STREAM not in item:
            mend = "Use it on a TwoStreamDataset."
            raise InputError("two_stream_collate", "an item of neither stream", "items with the mark of one", mend)
        # torch's collation would keep the metadata of the first MetaTensor for all.
        plain = {k: v.as_tensor() if isinstance(v, MetaTensor) else v for k, v in item.items() if k != _STREAM}
        halves[item[_STREAM]].append(plain)
    if not all(halves):
        found = f"{len(halves[0])} labelled and {len(halves[1])} unlabelled images"
        mend = "Give the DataLoader a TwoStreamBatchSampler as batch_sampler."
        raise InputError("two_stream_collate", found, "a batch with both", mend)
    labelled, unlabelled = map(default_collate, halves)
    renamed = {"unlabeled" if k == "image" else f"unlabeled_{k}": v for k, v in unlabelled.items()}
    return {**labelled, **renamed}
