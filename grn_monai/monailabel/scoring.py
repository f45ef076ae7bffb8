"""Active learning in MONAI Label: scores of the unlabelled scans, and strategies that go by them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from tqdm import tqdm

from grn_monai.active import disagreement_score, rank
from grn_monai.errors import InputError
from grn_monai.monailabel.infer import LayersInferTask
from grn_monai.monailabel.scores import ScoreStore, weights_stamp

__all__ = ["DisagreementScoring", "RankedStrategy", "scan_values"]

logger = logging.getLogger(__name__)

DAY = 24 * 60 * 60


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

    A scan is scored once for each state of the weights; one that cannot be read is named and passed over.

    Args:
        task: the model.
        store: where the scores are kept.
    """

    def __init__(self, task: LayersInferTask, store: ScoreStore) -> None:
        super().__init__("Disagreement of S(x) and S(G(x)), and of the two planes, on scans without labels")
        self.task, self.store = task, store

    def missing(self, datastore: Any) -> list[str]:
        """Unlabelled scans that these weights have not scored yet, by name."""
        stamp = weights_stamp(self.task.weights_file())
        return [i for i in sorted(datastore.get_unlabeled_images()) if self.store.get(i, stamp) is None]

    def __call__(self, request: Any, datastore: Any) -> dict[str, Any]:
        """Scores what has no score yet; ``max_samples`` in the request limits how many.

        Returns:
            ``total`` unlabelled scans, ``executed``, ``skipped`` (scored before), ``failed`` (scan to message) and
            ``latency`` in seconds.
        """
        start, total = time.time(), len(datastore.get_unlabeled_images())
        limit = int(request.get("max_samples") or 0)
        done: list[str] = []
        failed: dict[str, str] = {}
        before = total - len(self.missing(datastore))
        while todo := self.missing(datastore)[: limit - len(done) if limit else None]:
            # Once more when it ends: a training may have changed the weights meanwhile.
            for image in tqdm(todo, desc="scoring", unit="scan", disable=None):
                stamp = weights_stamp(self.task.weights_file())
                try:
                    values = scan_values(self.task.score(datastore.get_image_uri(image), request.get("device", "cpu")))
                    failed.pop(image, None)
                except InputError as error:
                    failed[image] = str(error)
                    values = {"disagreement": None, "entropy": None, "error": str(error)}
                self.store.save(image, stamp, values)
                done.append(image)
        for image, message in failed.items():
            logger.warning("not scored: %s: %s", image, message)
        summary = {"total": total, "executed": len(done), "skipped": before, "failed": failed}
        logger.info("scoring: %s", summary)
        return {**summary, "latency": round(time.time() - start, 3)}


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
        values = {image: self.store.get(image, stamp) or {} for image in images}
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
