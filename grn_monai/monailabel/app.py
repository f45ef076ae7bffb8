"""The MONAI Label app of this project: every bundle in its ``model`` folder that has weights."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.async_tasks.utils import tasks

from grn_monai import __version__
from grn_monai.errors import InputError, count_scans, find_input_error, report_input_errors
from grn_monai.labels import LAYER_NAMES
from grn_monai.monailabel.infer import LayersInferTask
from grn_monai.monailabel.layout import read_notes
from grn_monai.monailabel.names import shared_names
from grn_monai.monailabel.requests import refuse_expressions
from grn_monai.monailabel.saved import upload_removed_on_error
from grn_monai.monailabel.scores import ScoreStore, weights_stamp
from grn_monai.monailabel.scoring import (
    PARTIAL,
    DisagreementScoring,
    RankedStrategy,
    image_stamp,
    scan_values,
)
from grn_monai.monailabel.studies import make_studies
from grn_monai.monailabel.train import LayersTrainTask

__all__ = ["LayersApp", "ListedBatchInfer"]

logger = logging.getLogger(__name__)

NO_RANKING = "Next samples come by first or random: these models have no two predictions of a scan to compare."
NO_WEIGHTS = "no models/model.pt: train the bundle and lay out the app again, or copy a checkpoint there"


def _is_upload(image: str) -> bool:
    """Whether it is a file that came with a request: the endpoints put those into the folder for temporary files."""
    try:
        path = Path(image).resolve()
        sessions = settings.MONAI_LABEL_SESSION_PATH or Path.home() / ".cache" / "monailabel" / "sessions"
        folders = (Path(tempfile.gettempdir()), Path(sessions))
        return bool(image) and path.exists() and any(path.is_relative_to(folder.resolve()) for folder in folders)
    except OSError:  # a name too long for a file
        return False


def _has_image(datastore: Any, image: str) -> bool:
    known = getattr(datastore, "has_image", None)
    return bool(known(image)) if known is not None else image in datastore.list_images()


class ListedBatchInfer(BatchInferTask):
    """MONAI Label's batch inference, which goes on past a scan that cannot be segmented and lists it at the end."""

    def __call__(self, request: Any, datastore: Any, infer: Callable[..., Any]) -> dict[str, Any]:
        """Segments the scans of a request.

        Raises:
            InputError: some scans failed; all others are saved.
        """
        failed: dict[str, str] = {}

        def guarded(one: dict[str, Any], store: Any) -> dict[str, Any]:
            try:
                result: dict[str, Any] = infer(one, store)
            except Exception as error:  # also what no one can mend, such as a GPU out of memory
                failed[one["_image_id"]] = str(getattr(error, "detail", None) or error or type(error).__name__)
                return {}
            return result

        result: dict[str, Any] = super().__call__(request, datastore, guarded)
        if failed:
            listed = "; ".join(f"{image}: {message}" for image, message in sorted(failed.items()))
            found = f"{count_scans(len(failed))} of {len(result)} that failed: {listed}"
            raise InputError("batch inference", found, "readable scans", "Mend or remove these; the others are saved.")
        return result


class LayersApp(MONAILabelApp):
    """Serves, trains and ranks with the bundles of this project.

    Configuration (``--conf KEY VALUE``): ``models``, bundles to serve, separated by commas (default: all);
    ``scoring_model``, the one whose disagreement ranks scans (default: the first with a generator, else the first that
    has two predictions to compare; without such a model nothing is ranked, and clients are told so).

    All bundles served label alike: saved labels are numbered by their names.

    Args:
        app_dir: folder of the app, as `grn_monai.monailabel.layout` makes it.
        studies: folder of the scans, or the URL of a DICOMweb server.
        conf: see above.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        report_input_errors()  # background tasks end on one line, which is the last of the task's details
        wanted = [name.strip() for name in (conf.get("models") or "").split(",") if name.strip()]
        folders = {p.name: p for p in sorted((Path(app_dir) / "model").iterdir()) if (p / "configs").is_dir()}
        for name in wanted:
            if name not in folders:
                raise InputError("models", name, f"some of {', '.join(folders) or 'none'}", "Correct the option.")
        chosen = {name: path for name, path in folders.items() if not wanted or name in wanted}
        self.bundles = {name: str(p) for name, p in chosen.items() if (p / "models" / "model.pt").is_file()}
        self.subjects, left_out = read_notes(Path(app_dir))
        self.bundles = {name: path for name, path in self.bundles.items() if name not in left_out}
        self.not_served = {**{name: NO_WEIGHTS for name in chosen if name not in self.bundles}, **left_out}
        for name, reason in self.not_served.items():
            logger.warning("%s is not served: %s", name, reason)
        if not self.bundles:
            found = "no bundle with weights" if not chosen else f"no weights in {', '.join(chosen)}"
            raise InputError(app_dir, found, "model/NAME/models/model.pt", "Train a bundle and lay out the app again.")
        self.names = shared_names({name: Path(path) for name, path in self.bundles.items()})
        self.tasks = {name: LayersInferTask(path, conf) for name, path in self.bundles.items()}
        scoring = [name for name, task in self.tasks.items() if task.can_score]
        enhancing = [name for name in scoring if self.tasks[name].can_enhance]
        self.scoring_model = conf.get("scoring_model") or [*enhancing, *scoring, ""][0]
        if self.scoring_model not in scoring and (self.scoring_model or scoring):
            mend = "Correct the option."
            expected = f"one of {', '.join(scoring)}" if scoring else "none: these bundles have nothing to compare"
            raise InputError("scoring_model", self.scoring_model, expected, mend)
        if not scoring:
            logger.warning("%s", NO_RANKING)
        self.scores = ScoreStore(Path(app_dir) / "scores" / self.scoring_model)
        served = ", ".join(self.bundles)
        missing = "".join(f" Not served: {name} ({reason})." for name, reason in self.not_served.items())
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="grn-monai",
            description=f"{self._what()}: {served}. Research use only.{missing}{'' if scoring else f' {NO_RANKING}'}",
            version=__version__,
        )

    def _what(self) -> str:
        layers = self.names == {value: name.lower() for value, name in LAYER_NAMES.items()}
        return "Tissue layers of the back" if layers else "Muscles of the back"

    def init_infers(self) -> dict[str, Any]:
        """One task for each bundle with weights."""
        return dict(self.tasks)

    def init_trainers(self) -> dict[str, Any]:
        """One task for each bundle with weights."""
        return {name: LayersTrainTask(path, self.conf, self.subjects) for name, path in self.bundles.items()}

    def init_scoring_methods(self) -> dict[str, Any]:
        """``disagreement``, where a model has predictions to compare."""
        if not self.scoring_model:
            return {}
        return {"disagreement": DisagreementScoring(self.tasks[self.scoring_model], self.scores)}

    def init_strategies(self) -> dict[str, Any]:
        """``disagreement``, which clients offer first, ``entropy``, and MONAI Label's ``random`` and ``first``.

        Without a model that scores, the last two alone.
        """

        def stamp() -> str:
            return weights_stamp(self.tasks[self.scoring_model].weights_file())

        if not self.scoring_model:
            return {"random": Random(), "first": First()}
        by = "Highest disagreement of S(x) and S(G(x)), and of the two planes"
        return {
            "disagreement": RankedStrategy("disagreement", self.scores, stamp, by),
            "entropy": RankedStrategy("entropy", self.scores, stamp, "Highest mean predictive entropy"),
            "random": Random(),
            "first": First(),
        }

    def init_batch_infer(self) -> Any:
        """Batch inference that lists bad scans at the end."""
        return ListedBatchInfer()

    def _init_dicomweb_datastore(self) -> Any:
        from grn_monai.monailabel.dicomweb import make_datastore  # only where a DICOM server is asked for

        return make_datastore(self.studies, settings, names=self.names)

    def on_init_complete(self) -> None:
        """Loads the weights before the first request, and starts scoring."""
        for task in self.tasks.values():
            task.warm_up()
        super().on_init_complete()

    def infer(self, request: Any, datastore: Any = None) -> Any:
        """Segments one scan; see MONAI Label's ``MONAILabelApp.infer``.

        The scan's scores are kept as well: the request computed them anyway.

        Raises:
            HTTPException: 404 for an unknown scan or model, 422 for input that the user can mend; the detail says what
                to do. Anything else would reach a client as "Internal Server Error".
        """
        image = request.get("image")
        try:
            with upload_removed_on_error(image if isinstance(image, str) else ""):
                store = datastore or self.datastore()
                self._check_image(request, store)
                file = "" if not isinstance(image, str) or _is_upload(image) else image_stamp(store, image)
                result = super().infer(request, datastore)
        except Exception as error:
            cause = find_input_error(error)
            if cause is None:
                raise
            logger.warning("%s", cause)
            raise HTTPException(422, str(cause)) from error
        self._keep_score(request, result, file)
        return result

    def _check_image(self, request: Any, datastore: Any) -> None:
        """Sees that a request asks for a model and a scan of this server, or for a file that came with it.

        Raises:
            HTTPException: 404.
        """
        model, image = request.get("model"), request.get("image")
        if model not in self.tasks:
            raise HTTPException(404, f"model: found {model!r}; expected one of {', '.join(self.tasks)}.")
        if isinstance(image, str) and not _is_upload(image) and not (image and _has_image(datastore, image)):
            found = f"image: found {image[:80]!r}; expected an image of the datastore."
            raise HTTPException(404, f"{found} Choose one of the server's images, or send the file.")

    def _keep_score(self, request: Any, result: Any, file: str) -> None:
        """Keeps the disagreement of a scan of the datastore (its file's stamp in `file`) segmented by default."""
        params = result.get("params") or {}
        quality = params.get("quality")
        if not file or quality is None or request["model"] != self.scoring_model:
            return
        task = self.tasks[self.scoring_model]
        if task.weights_file(request) != task.weights_file() or (task.can_enhance and not quality["sge"]):
            return
        kept = self.scores.get(request["image"], params["weights"], file)
        if kept is None or "error" in kept:
            values = {**scan_values({"quality": quality}), PARTIAL: True}
            self.scores.save(request["image"], params["weights"], values, file)

    def train(self, request: Any) -> Any:
        """Trains one bundle; see MONAI Label's ``MONAILabelApp.train``.

        Raises:
            HTTPException: 422, in the server itself (``run_sync``).
            InputError: in a background task, whose details end on its message.
        """
        return self._told(super().train, request)

    def batch_infer(self, request: Any, datastore: Any = None) -> Any:
        """Segments many scans; bad ones are listed at the end, see `ListedBatchInfer`. Raises as `train`."""
        # On a machine without GPU, MONAI Label's default (all GPUs) has no device to use.
        return self._told(super().batch_infer, {"multi_gpu": False, **request}, datastore)

    def init_datastore(self) -> Any:
        """A folder of scans with checked labels, or a DICOM archive."""
        if "://" in self.studies:
            return super().init_datastore()
        return make_studies(self.studies, settings, self.names)

    def next_sample(self, request: Any) -> Any:
        """The scan to label next; see MONAI Label's ``MONAILabelApp.next_sample``.

        Raises:
            HTTPException: 422, a ranking was asked for that none of the models gives.
        """
        strategy = request.get("strategy")
        if strategy in ("disagreement", "entropy") and not self.scoring_model:
            raise HTTPException(422, f"strategy: found {strategy!r}. {NO_RANKING}")
        return super().next_sample(request)

    def _told(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except InputError as error:
            if self._server_mode:
                raise HTTPException(422, str(error)) from error
            raise

    def scoring(self, request: Any, datastore: Any = None) -> Any:
        """Scores scans; see MONAI Label's ``MONAILabelApp.scoring``. In the background it gives way to requests."""
        refuse_expressions(request)
        if not self._server_mode:
            os.nice(10)
            # Waiting threads of torch would take the other cores from the server all the same.
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        return super().scoring(request, datastore)

    def async_scoring(self, method: Any, params: Any = None) -> Any:
        """Starts a scoring process, unless one is at work or every unlabelled scan has its score already."""
        if not self._scoring_methods:
            return {}
        method = method or "disagreement"
        known = self._scoring_methods.get(method)
        at_work = any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks("scoring"))
        if at_work or (isinstance(known, DisagreementScoring) and not known.missing(self.datastore())):
            return {}
        try:
            return super().async_scoring(method, params)
        except requests.RequestException as error:
            # After a training in the background: the server is not asked where it listens. It will see the new weights
            # when the next sample is asked for.
            logger.warning("scoring was not started: %s", error)
            return {}

    def info(self) -> Any:
        """What clients show; MONAI Label's info and the bundles that are not served, with the reason."""
        return {**copy.copy(super().info()), "not_served": self.not_served}
