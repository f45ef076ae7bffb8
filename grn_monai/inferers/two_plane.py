"""Segments a volume slice by slice in both depth planes, and fuses the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from tqdm import tqdm

from grn_monai.errors import InputError
from grn_monai.inferers.backends import check_backend, prepared
from grn_monai.transforms.quality import argmax_labels
from grn_monai.transforms.slices import PLANES, plane_axis, planes_within, slices_to_volume, volume_to_slices

__all__ = ["TwoPlaneInferer"]

FUSIONS = ("mean", "product")


class TwoPlaneInferer(Inferer):
    """Runs a 2D network over the slices of one or both planes and returns class probabilities on the volume grid.

    Slices are cut, resized and put back a batch at a time, and probabilities are added into one float32 buffer, so
    that beside the result only one batch is in memory. No gradients are kept.

    Args:
        planes: which planes to use, of ``"sagittal"`` and ``"transverse"``. Of a single slice, ``(X, 1, Z)`` or
            ``(1, Y, Z)``, only its own plane is; ``return_planes`` then gives the same for both.
        size: ``(H, W)`` that the network sees; ``None`` keeps the grid of the volume.
        batch_size: slices per call of the network; it does not change the result of a network in eval mode.
        fusion: ``"mean"`` of the planes' probabilities, or ``"product"``, their normalised geometric mean.
        amp: run the network in bfloat16 autocast; probabilities are float32 all the same.
        return_planes: also return the probabilities of each plane.
        return_enhanced: also return the enhanced image of a network with a method ``enhance``.
        return_agreement: also count, without truth, how predictions of the scan agree: those of the two planes, and,
            of a network that segments its own enhancement (attribute ``sge``, method ``segment``), S(G(x)) and S(x)
            of every slice. It costs one more pass of S, none of G, and one uint8 volume;
            `grn_monai.measure.agreement.agreement` turns the counts into disagreement and Dice.
        progress: show a progress bar.
        sge: predict S(G(x)) if true, S(x) if false, whatever the network's own attribute ``sge`` says; the network is
            not changed, so that calls with either can share it. None: as the network is.
        backend: what computes: ``"torch"``, ``"compiled"`` (``torch.compile``; the first scan waits for it), or on
            the CPU ``"onnxruntime"`` or ``"openvino"``. The others than torch use a copy of the network in eval mode,
            follow its weights, and stay within 1e-4 of its probabilities in float32 (`grn_monai.inferers.backends`).

    Raises:
        InputError: an unknown plane, fusion or backend, no plane, a batch size below 1, or a backend that is not
            installed or has no ``amp``.
    """

    def __init__(
        self,
        planes: Sequence[str] = PLANES,
        size: Sequence[int] | None = (256, 256),
        batch_size: int = 8,
        fusion: str = "mean",
        amp: bool = False,
        return_planes: bool = False,
        return_enhanced: bool = False,
        progress: bool = False,
        return_agreement: bool = False,
        sge: bool | None = None,
        backend: str = "torch",
    ) -> None:
        super().__init__()
        self.planes = (planes,) if isinstance(planes, str) else tuple(planes)
        if not self.planes or len(set(map(plane_axis, self.planes))) < len(self.planes):
            raise InputError("planes", repr(planes), "one or two different planes", "Correct the option.")
        if fusion not in FUSIONS:
            raise InputError("fusion", repr(fusion), " or ".join(FUSIONS), "Choose one of them.")
        if batch_size < 1:
            raise InputError("batch_size", str(batch_size), "a whole number from 1", "Correct the option.")
        self.size = None if size is None else tuple(size)
        self.batch_size, self.fusion, self.amp = batch_size, fusion, amp
        self.return_planes, self.return_enhanced, self.progress = return_planes, return_enhanced, progress
        check_backend(backend, amp=amp)
        self.return_agreement, self.sge, self.backend = return_agreement, sge, backend

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Segments volumes.

        Args:
            inputs: ``(B, C, X, Y, Z)`` in the scan frame, in [−1, 1].
            network: maps slices ``(N, C, H, W)`` to logits ``(N, K, H, W)``.
            args: passed to ``network``, not to its methods.
            kwargs: passed to ``network``, not to its methods.

        Returns:
            Probabilities ``(B, K, X, Y, Z)``, float32, that sum to 1 over K; with ``return_planes`` or
            ``return_enhanced`` a dictionary of ``"pred"``, the planes by name, and ``"enhanced"``
            ``(B, C, X, Y, Z)``. With ``return_agreement`` it holds ``"plane_counts"`` (where two planes are used) and
            ``"sge_counts"`` (where the network has S(x) and S(G(x))), int64 ``(B, K, K)``: voxels by the label in
            the first and in the second plane, and by that of S(x) and of S(G(x)) over the slices of all planes. A
            MetaTensor gives MetaTensors with its meta and history.

        Raises:
            InputError: the input is not five-dimensional, the network returns no tensor, or it cannot enhance, or
                segment without, as asked; or the backend cannot run it on this device.
        """
        if inputs.ndim != 5:
            mend = "Add the missing batch or channel axis."
            raise InputError("TwoPlaneInferer", f"data of shape {tuple(inputs.shape)}", "(B, C, X, Y, Z)", mend)
        results: dict[str, torch.Tensor] = {}
        volumes = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs  # plain tensors are faster
        network = prepared(network, self.backend, volumes.device, self.amp, self.batch_size)
        planes = planes_within(self.planes, volumes.shape[2:])  # of a single slice, its own plane only
        counts = {plane: volumes.shape[2 + plane_axis(plane)] for plane in planes}
        batches = sum(-(-count // self.batch_size) for count in counts.values()) * len(volumes)
        with torch.no_grad(), tqdm(total=batches, disable=not self.progress, unit="batch") as bar:
            for b, volume in enumerate(volumes):
                first_plane = None
                if self.return_agreement and len(planes) > 1:
                    first_plane = torch.empty(volume.shape[1:], dtype=torch.uint8, device=volume.device)
                for plane, count in counts.items():
                    for start in range(0, count, self.batch_size):
                        stop = min(start + self.batch_size, count)
                        slices = volume_to_slices(volume, plane, self.size, start=start, stop=stop).contiguous()
                        with torch.autocast(volume.device.type, torch.bfloat16, enabled=self.amp):
                            logits, enhanced = self._run(network, slices, *args, **kwargs)
                            # Not as one batch with S(G(x)): the prediction shall not depend on this option by a bit.
                            raw = network.segment(slices) if self._has_both(network) else None  # type: ignore[attr-defined]
                        share = 1 / len(planes)
                        probabilities = self._collect(results, volumes, b, plane, start, share, logits, enhanced)
                        if self.return_agreement:
                            self._compare(results, volumes, b, plane, start, probabilities, raw, first_plane)
                        bar.update()
            if self.fusion == "product":
                for volume in results["pred"]:
                    for slab in volume.unbind(1):  # a slab at a time, in place
                        slab.copy_(slab.softmax(0))
            if self.return_planes:
                results |= {plane: results["pred"].clone() for plane in self.planes if plane not in planes}
        if isinstance(inputs, MetaTensor):
            results = {key: MetaTensor(value).copy_meta_from(inputs) for key, value in results.items()}
        more = self.return_planes or self.return_enhanced or self.return_agreement
        return results if more else results["pred"]

    def _enhances(self, network: Any) -> bool:
        """Whether the prediction is S(G(x))."""
        return bool(getattr(network, "sge", hasattr(network, "enhance")) if self.sge is None else self.sge)

    def _has_both(self, network: Any) -> bool:
        """Whether to compare S(x) with S(G(x))."""
        return self.return_agreement and self._enhances(network) and hasattr(network, "segment")

    def _run(
        self, network: Any, slices: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits and, if asked for, the enhanced slices; G runs once where there is ``enhance_and_segment``."""
        enhanced, sge = None, self._enhances(network)
        if (sge or self.return_enhanced) and not hasattr(network, "enhance"):
            option = "return_enhanced" if self.return_enhanced else "sge"
            mend = f"Use EnhancedSegmentor, or set {option} to False."
            raise InputError(option, type(network).__name__, "a network with a method enhance", mend)
        if sge and (self.return_enhanced or not getattr(network, "sge", True)):
            if hasattr(network, "enhance_and_segment"):
                enhanced, logits = network.enhance_and_segment(slices)
            elif not getattr(network, "sge", True):
                mend = "Use EnhancedSegmentor, or leave sge to the network."
                expected = "a network with a method enhance_and_segment"
                raise InputError("sge", f"{type(network).__name__}, which predicts S(x)", expected, mend)
            else:
                enhanced, logits = network.enhance(slices), network(slices, *args, **kwargs)
        else:
            if self.return_enhanced:  # beside S(x): there is no pass to share
                enhanced = network.enhance(slices)
            own = sge or not getattr(network, "sge", hasattr(network, "enhance"))
            if not own and not hasattr(network, "segment"):
                mend = "Use EnhancedSegmentor, or leave sge to the network."
                raise InputError("sge", type(network).__name__, "a network with a method segment", mend)
            logits = network(slices, *args, **kwargs) if own else network.segment(slices)
        if not isinstance(logits, torch.Tensor):
            mend = "Wrap the network so that it returns its final logits only."
            raise InputError("TwoPlaneInferer", f"a network that returns {type(logits).__name__}", "a tensor", mend)
        return logits, enhanced if self.return_enhanced else None

    def _collect(
        self,
        results: dict[str, torch.Tensor],
        volumes: torch.Tensor,
        b: int,
        plane: str,
        start: int,
        share: float,
        logits: torch.Tensor,
        enhanced: torch.Tensor | None,
    ) -> torch.Tensor:
        """Adds one batch of slices to the results, at its place in volume ``b``; returns its ``(K, X, Y, Z)`` part."""
        probabilities = slices_to_volume(logits.float().softmax(1), plane, volumes.shape[2:])
        parts = {"pred": probabilities.clamp_min(1e-12).log() if self.fusion == "product" else probabilities}
        if self.return_planes:
            parts[plane] = probabilities
        if enhanced is not None:
            parts["enhanced"] = slices_to_volume(enhanced.float(), plane, volumes.shape[2:])
        for key, part in parts.items():
            if key not in results:
                shape = (len(volumes), part.shape[0], *volumes.shape[2:])
                results[key] = torch.zeros(shape, device=volumes.device)
            place = results[key][b].narrow(plane_axis(plane) + 1, start, part.shape[plane_axis(plane) + 1])
            place.add_(part, alpha=1 if key == plane else share)
        return probabilities

    def _compare(
        self,
        results: dict[str, torch.Tensor],
        volumes: torch.Tensor,
        b: int,
        plane: str,
        start: int,
        probabilities: torch.Tensor,
        raw: torch.Tensor | None,
        first_plane: torch.Tensor | None,
    ) -> None:
        """Counts the pairs of labels of one batch of slices."""
        labels = argmax_labels(probabilities)

        def add(key: str, first: torch.Tensor, second: torch.Tensor) -> None:
            classes = len(probabilities)
            if key not in results:
                results[key] = torch.zeros((len(volumes), classes, classes), dtype=torch.int64, device=volumes.device)
            pairs = (first.int() * classes + second).flatten()
            results[key][b] += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)

        if raw is not None:
            maps = slices_to_volume(raw.float().softmax(1), plane, volumes.shape[2:])
            add("sge_counts", argmax_labels(maps), labels)
        if first_plane is not None:
            axis = plane_axis(plane)
            place = first_plane.narrow(axis, start, labels.shape[axis])
            if plane == self.planes[0]:
                place.copy_(labels)
            else:
                add("plane_counts", place, labels)
