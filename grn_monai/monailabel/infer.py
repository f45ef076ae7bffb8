"""Inference of one bundle in MONAI Label: strict about weights, with SGE and its quality numbers by request."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import itk
import numpy as np
import torch
from monai.transforms import SaveImaged
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.utils.others.generic import name_to_device

from grn_monai.active import mean_entropy
from grn_monai.errors import InputError
from grn_monai.handlers import load_model
from grn_monai.monailabel.requests import device_of, refuse_expressions
from grn_monai.monailabel.scores import weights_stamp
from grn_monai.networks import EnhancedSegmentor
from grn_monai.options import flag
from grn_monai.transforms import SaveQualityd
from grn_monai.transforms.found import ReportMissingd
from grn_monai.transforms.quality import counted_agreement
from grn_monai.zoo._configs import model_options
from grn_monai.zoo._labels import label_names

__all__ = ["LayersInferTask"]

ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".seg.nrrd")
"""Of answers, as a client may ask for them."""
AUTO = "auto"
"""Choice of ``model_filename`` that leaves the weights to the bundle: best at S(G(x)), or at S(x) without SGE."""


class LayersInferTask(BundleInferTask):
    """MONAI Label's bundle inference, with what trust in its answers needs.

    * Weights have to fit to the last one, and what shapes the data (slice size, voxel size, window) has to be as in
      the training; MONAI Label's own task fills what fits and answers from random weights for the rest.
    * Networks are kept by file and by its time of change, so that a retrained model answers as soon as it is there,
      and several files of one bundle can be asked in turn without loading them each time.
    * ``sge: false`` in a request predicts S(x), by default with the weights that were best at it.
    * ``params.result.quality`` holds the quality numbers of the scan (see `grn_monai.transforms.ScanQualityd`), of
      muscles ``params.result.missing`` the names of those that were not found.
    * One request at a time: options of a request go through the bundle's one configuration.

    Args:
        path: folder of the bundle.
        conf: the app's configuration (``--conf``).
        kwargs: passed to MONAI Label's task.
    """

    def __init__(self, path: str, conf: dict[str, str], **kwargs: Any) -> None:
        super().__init__(path, conf, post_filter=[SaveImaged, SaveQualityd], load_strict=True, **kwargs)
        self._lock = threading.RLock()
        self._loaded: dict[tuple[str, str], tuple[str, torch.nn.Module]] = {}
        self._answered = ""  # stamp of the weights of the last answer
        if self.valid:
            files = sorted((Path(path) / "models").glob("*.pt"))
            self._config["model_filename"] = [AUTO, *(file.name for file in files)]
            self.dimension = 3  # of the scans; the metadata tells that of the slices
            self.labels = {name: value for value, name in label_names(Path(path)).items() if value}
            if self.can_enhance:
                self._config.setdefault("sge", True)

    @property
    def can_enhance(self) -> bool:
        """Whether the bundle has a generator, so that S(x) can be compared with S(G(x))."""
        return hasattr(self.network, "enhance")

    @property
    def can_score(self) -> bool:
        """Whether there are two predictions to compare: scans through both depth planes, and S(x) and S(G(x))."""
        inferer = self.bundle_config.get("inferer") or {}
        return str(inferer.get("_target_", "")).endswith(".TwoPlaneInferer")

    def __call__(self, request: Any, callbacks: Any = None) -> tuple[Any, dict[str, Any]]:
        """Segments one scan; see MONAI Label's ``BasicInferTask``.

        Raises:
            InputError: an option is none, the scan cannot be read, or the weights do not fit.
        """
        with self._lock:
            file, params = super().__call__(self._checked(request), callbacks)
            return file, {**params, "weights": self._answered}

    def _checked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request with its switches and its device as what they mean."""
        refuse_expressions({key: value for key, value in request.items() if key not in ("image", "description")})
        checked = dict(request)
        switches = dict(getattr(self, "displayable_configs", {})) | ({"sge": True} if self.can_enhance else {})
        for name, default in switches.items():
            if name in checked and isinstance(default, bool):
                value = checked[name][0] if isinstance(checked[name], list) and checked[name] else checked[name]
                try:
                    checked[name] = flag(value)
                except InputError as error:
                    raise InputError(name, repr(value)[:60], "true or false", "Correct the option.") from error
        ending = checked.get("result_extension")
        if ending and ending not in ENDINGS:
            raise InputError(
                "result_extension", repr(ending)[:60], f"one of {', '.join(ENDINGS)}", "Correct the option."
            )
        return {**checked, "device": device_of(checked.get("device"))}

    def weights_file(self, data: Mapping[str, Any] | None = None) -> Path:
        """The checkpoint that answers a request.

        Raises:
            InputError: the request names a file that is not there, or none of the bundle's own.
        """
        models = Path(self.path[0]).parent
        name = (data or {}).get("model_filename", AUTO)
        name = name if isinstance(name, str) else AUTO
        if name == AUTO:
            raw = models / "model_raw.pt"
            return raw if self.can_enhance and not self._wants_sge(data) and raw.is_file() else Path(self.path[0])
        if Path(name).name != name or not (models / name).is_file():
            known = ", ".join(sorted(file.name for file in models.glob("*.pt")))
            raise InputError("model_filename", repr(name), f"{AUTO} or one of {known}", "Choose one of them.")
        return models / name

    def _wants_sge(self, data: Mapping[str, Any] | None) -> bool:
        return flag((data or {}).get("sge", True))

    def _get_network(self, device: str, data: Any) -> torch.nn.Module:
        """The network with the weights of the request, loaded when they are new."""
        file = self.weights_file(data)
        stamp = weights_stamp(file)  # before loading: weights that change meanwhile are loaded again next time
        known, network = self._loaded.get((device, str(file)), ("", None))
        if network is None or known != stamp:
            options = model_options(self.bundle_config)
            fresh = copy.deepcopy(self.network).to(torch.device(device))
            network = load_model(file, fresh, map_location=torch.device(device), options=options).eval()
            self._loaded[device, str(file)] = (stamp, network)
        if isinstance(network, EnhancedSegmentor):
            network.sge = self._wants_sge(data)  # for inferers that leave it to the network; one request at a time
        self._answered = stamp
        return network

    def warm_up(self) -> None:
        """Loads the weights and the writer's library, so that the first request need not wait for them."""
        self._get_network(name_to_device("cuda"), None)
        itk.image_from_array(np.zeros((1, 1, 1), np.uint8))

    def clear(self) -> None:
        """Forget loaded networks."""
        self._loaded.clear()

    clear_cache = clear

    def run_pre_transforms(self, data: dict[str, Any], transforms: Any) -> Any:
        """Runs the bundle's preprocessing. MONAI's ``Spacingd`` takes every ``image_…`` for metadata, also the path."""
        held = {key: data.pop(key) for key in list(data) if key.startswith(f"{self.input_key}_")}
        return {**super().run_pre_transforms(data, transforms), **held}

    def run_post_transforms(self, data: dict[str, Any], transforms: Any) -> Any:
        """Runs the bundle's postprocessing, and hands quality numbers and what was not found on to the client."""
        data = super().run_post_transforms(data, transforms)
        told = {} if data.get("quality") is None else {"quality": data["quality"]}
        if any(isinstance(transform, ReportMissingd) for transform in transforms):
            present = set(np.unique(np.asarray(data[self.output_label_key])).astype(int).tolist())
            told["missing"] = [name for name, value in self.labels.items() if value not in present]
        if told:
            data[self.output_json_key] = {**(data.get(self.output_json_key) or {}), **told}
        return data

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[Any, Any]:
        """Writes the labels as uint8; MONAI Label would write float32. An .mhd, two files, is answered by one."""
        if str(data.get("image_path", "")).lower().endswith(".mhd") and not data.get("result_extension"):
            extension = extension or ".mha"
        result: tuple[Any, Any] = super().writer(data, extension, dtype or np.uint8)
        return result

    def score(self, image: str, device: str = "cpu") -> dict[str, Any]:
        """How unsure the bundle is of one scan, with the weights of its default and with SGE.

        Preprocessing and one inference, as for a segmentation; nothing is decoded or written.

        Args:
            image: file of the scan.
            device: torch device.

        Returns:
            ``quality``: the two disagreements as `grn_monai.transforms.ScanQualityd` names them; ``entropy``: see
            `grn_monai.active.mean_entropy`; ``weights``: stamp of the weights that answered.

        Raises:
            InputError: the scan cannot be read.
        """
        with self._lock:
            data = {**copy.deepcopy(self._config), "image": image, "image_path": image, "device": device}
            data = self.run_pre_transforms(data, self.pre_transforms(data))
            data = self.run_inferer(data, device=device)
            weights = self._answered
        outputs = data[self.output_label_key]
        outputs = outputs if isinstance(outputs, Mapping) else {"pred": outputs}
        names = ("plane", "sge")
        quality = {f"{name}_disagreement": counted_agreement(outputs.get(f"{name}_counts")) for name in names}
        return {"quality": quality, "entropy": mean_entropy(outputs["pred"]), "weights": weights}
