"""Active learning in MONAI Label: scores of the unlabelled scans, and strategies that go by them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from tqdm import tqdm

from grn_monai.active import disagreement_score, rank
from grn_monai.errors import find_input_error
from grn_monai.monailabel.archive import ArchiveError
from grn_monai.monailabel.infer import LayersInferTask
from grn_monai.monailabel.requests import device_of, whole_number
from grn_monai.monailabel.scores import ScoreStore, file_stamp, weights_stamp

__all__ = ["PARTIAL", "DisagreementScoring", "RankedStrategy", "image_stamp", "scan_values"]

logger = logging.getLogger(__name__)

DAY = 24 * 60 * 60
PARTIAL = "partial"
"""Marks values that a request left, which has no entropy."""


def image_stamp(datastore: Any, image_id: str) -> str:
    """Stamp of a scan's file as it is now; "" where it is not here yet: nothing is fetched from an archive for it."""
    here = isinstance(datastore, LocalDatastore)
    return file_stamp(LocalDatastore.get_image_uri(datastore, image_id)) if here else ""


def scan_values(scored: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a scan: its score, the two disagreements in percent of the tissue, and the entropy."""
    quality = scored["quality"]
    percents = {
        f"{name}_disagreement": (quality.get(f"{name}_disagreement") or {}).get("disagreement_percent")
        for name in ("plane", "sge")
    }
    return {"disagreement": disagreement_score(quality), **percents, "entropy": scored.get("entropy")}


class DisagreementScoring(ScoringMethod):
    """Scores every unlabelled scan by how far its predictions disagree; see ``docs/active_learning.md``.

    A scan is scored once for each state of the weights and of its file; one that cannot be read is named and passed
    over.

    Args:
        task: the model.
        store: where the scores are kept.
    """

    def __init__(self, task: LayersInferTask, store: ScoreStore) -> None:
        super().__init__("Disagreement of S(x) and S(G(x)), and of the two planes, on scans without labels")
        self.task, self.store = task, store

    def missing(self, datastore: Any) -> list[str]:
        """Unlabelled scans that these weights have not scored as they are now, or not wholly, by name."""
        stamp = weights_stamp(self.task.weights_file())

        def known(image: str) -> dict[str, Any] | None:
            return self.store.get(image, stamp, image_stamp(datastore, image))

        images = sorted(datastore.get_unlabeled_images())
        return [image for image in images if (known(image) or {PARTIAL: True}).get(PARTIAL)]

    def __call__(self, request: Any, datastore: Any) -> dict[str, Any]:
        """Scores what has no score yet.

        Args:
            request: ``max_samples`` limits how many; ``device``, else a GPU where there is one.
            datastore: the scans.

        Returns:
            ``total`` unlabelled scans, ``executed``, ``skipped`` (scored before), ``failed`` (scan to message) and
            ``latency`` in seconds.

        Raises:
            InputError: an option is at fault, or an archive does not answer.
        """
        start, total = time.time(), len(datastore.get_unlabeled_images())
        limit = whole_number("max_samples", request.get("max_samples") or 0, 0)
        device = device_of(request.get("device"))
        done: list[str] = []
        tried: set[tuple[str, str]] = set()
        failed: dict[str, str] = {}

        def left() -> list[str]:
            stamp = weights_stamp(self.task.weights_file())
            return [image for image in self.missing(datastore) if (image, stamp) not in tried]

        todo = left()
        before = total - len(todo)
        while todo := todo[: limit - len(done) if limit else None]:
            for image in tqdm(todo, desc="scoring", unit="scan", disable=None):
                stamp = weights_stamp(self.task.weights_file())
                tried.add((image, stamp))
                message = self._score(image, stamp, datastore, device)
                failed.pop(image, None)
                if message:
                    failed[image] = message
                done.append(image)
            todo = left()  # once more: a training may have changed the weights meanwhile
        for image, message in failed.items():
            logger.warning("not scored: %s: %s", image, message)
        summary = {"total": total, "executed": len(done), "skipped": before, "failed": failed}
        logger.info("scoring: %s", summary)
        return {**summary, "latency": round(time.time() - start, 3)}

    def _score(self, image: str, stamp: str, datastore: Any, device: str) -> str:
        """Scores one scan and keeps the result; returns what was wrong with it, if anything."""
        file, message = image_stamp(datastore, image), ""
        try:
            path = datastore.get_image_uri(image)
            if not path:  # removed meanwhile; a score kept for it would meet another file of its name
                return "no such image any more"
            file = file_stamp(path)  # before it is read: one that changes meanwhile is scored again
            scored = self.task.score(path, device)
            values, stamp = scan_values(scored), scored["weights"]
        except Exception as error:
            cause = find_input_error(error)
            if cause is None or isinstance(cause, ArchiveError):  # that is over once the archive answers again
                raise
            message = str(cause)
            values = {"disagreement": None, "entropy": None, "error": message}
        self.store.save(image, stamp, values, file)
        return message


class RankedStrategy(Strategy):
    """Offers the unlabelled scan with the highest score.

    A scan that was offered within the last day comes after those that were not, so that asking again without
    submitting a label goes down the list. Scans without a score come last; those that cannot be read are not offered
    as long as there are others.

    Args:
        key: which of the kept values to go by, such as ``"disagreement"``.
        store: where the scores are kept.
        stamp: gives the stamp of the weights that are served now.
        description: shown to users.
    """

    def __init__(self, key: str, store: ScoreStore, stamp: Callable[[], str], description: str) -> None:
        super().__init__(description)
        self.key, self.store, self.stamp = key, store, stamp

    def __call__(self, request: Any, datastore: Any) -> dict[str, Any] | None:
        """Returns ``id``, ``score``, ``scored`` (whether there is one) and ``rank`` among the unlabelled scans."""
        stamp, now = self.stamp(), time.time()
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        values = {image: self.store.get(image, stamp, image_stamp(datastore, image)) or {} for image in images}
        if not values:
            return None
        scores = {image: kept.get(self.key) for image, kept in values.items()}
        order = sorted(rank(scores), key=lambda image: "error" in values[image])

        def offered(image: str) -> float:
            info = datastore.get_image_info(image).get("strategy", {}).get(request["strategy"], {})
            return float(info["ts"]) if now - info.get("ts", 0) < DAY else 0.0

        image = min(order, key=lambda image: ("error" in values[image], offered(image)))
        place = order.index(image) + 1
        logger.info("%s: %s, place %d of %d", request["strategy"], image, place, len(order))
        return {"id": image, "score": scores[image], "scored": scores[image] is not None, "rank": place}
