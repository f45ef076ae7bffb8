"""Where a network runs: as it is, or as graphs of its parts, made in memory from its weights when they are first used.

A graph takes any number of slices of any size that its network takes. Nothing is written to disk (the compiler of
torch keeps its own cache), so that processes do not meet, and no graph outlives the weights it was made of. Nobody is
told: both packages that run graphs report their use to servers by themselves, which is turned off here.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from grn_monai.errors import InputError
from grn_monai.networks import EnhancedSegmentor
from grn_monai.options import check_choice

__all__ = ["BACKENDS", "check_backend", "import_onnxruntime", "import_openvino", "onnx_graph", "prepared"]

BACKENDS = ("torch", "compiled", "onnxruntime", "openvino")
_GRAPHS = ("onnxruntime", "openvino")

Run = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Settings:
    """What a graph is made for, beside its weights."""

    backend: str
    device: str
    amp: bool
    threads: int
    batch_size: int


def check_backend(backend: str, device: torch.device | str = "cpu", amp: bool = False) -> None:
    """Refuse a backend that cannot run here.

    Args:
        backend: one of ``BACKENDS``.
        device: where the slices are; graphs of ONNX Runtime and OpenVINO run on the CPU only.
        amp: bfloat16, which ONNX Runtime does not offer on the CPU.

    Raises:
        InputError: an unknown backend, a package that is not installed, or what the backend does not offer.
    """
    check_choice("backend", backend, BACKENDS)
    kind = torch.device(device).type
    if backend in _GRAPHS and importlib.util.find_spec(backend) is None:
        mend = 'Install it with: python -m pip install "grn-monai[export]", or leave the backend at torch.'
        raise InputError("backend", f"no package {backend}", "it to be installed", mend)
    if backend in _GRAPHS and kind != "cpu":
        mend = "Set the device to cpu, or the backend to torch or compiled."
        raise InputError("backend", f"{backend} on the device {kind}", "the device cpu", mend)
    if backend == "onnxruntime" and amp:
        mend = "Leave amp at false, or set the backend to torch, compiled or openvino."
        raise InputError("amp", "bfloat16 with the backend onnxruntime", "float32", mend)
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if backend == "compiled" and kind == "cpu" and os.name == "posix" and not any(map(shutil.which, compilers)):
        mend = "Install g++ or clang++, or set another backend."
        raise InputError("backend", "compiled, but no C++ compiler", "one on the PATH", mend)


def prepared(
    network: Any, backend: str, device: torch.device | str = "cpu", amp: bool = False, batch_size: int = 1
) -> Any:
    """The network on another backend, with its methods where it is an ``EnhancedSegmentor``.

    What was prepared is kept as long as the network, and dropped when its weights have changed. For that a digest of
    all weights is taken at every call (docs/export.md has its cost): the version counters of tensors do not tell of
    changes through ``.data``. All backends use as many threads as torch. Safe to call from several threads, as is
    what it returns.

    Args:
        network: maps slices ``(N, C, H, W)`` to logits ``(N, K, H, W)``; used as in eval mode.
        backend: one of ``BACKENDS``; ``"torch"`` gives the network back as it is.
        device: where the slices are.
        amp: OpenVINO computes in bfloat16 (where the processor has it); otherwise all backends keep float32, and
            ``"compiled"`` obeys autocast.
        batch_size: slices in a full batch, to which ``"compiled"`` fills up smaller ones.

    Raises:
        InputError: as `check_backend`; the network is no ``torch.nn.Module``, or a TorchScript file, or has methods
            ``enhance`` or ``segment`` without being an ``EnhancedSegmentor`` itself (a subclass may do anything).
    """
    if backend == "torch":
        return network
    check_backend(backend, device, amp)
    if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
        mend = "Load a checkpoint (model.pt), or leave the backend at torch."
        raise InputError("backend", f"{backend} for a {type(network).__name__}", "a network of Python modules", mend)
    whole: EnhancedSegmentor | None = network if type(network) is EnhancedSegmentor else None
    if whole is None and (hasattr(network, "enhance") or hasattr(network, "segment")):
        mend = "Use EnhancedSegmentor as it is, or leave the backend at torch."
        found = f"{backend} for a {type(network).__name__} with methods of its own"
        raise InputError("backend", found, "an EnhancedSegmentor, or a network without enhance and segment", mend)
    size = batch_size if backend == "compiled" else 0  # graphs take any
    settings, state = _Settings(backend, str(device), amp, torch.get_num_threads(), size), _digest(network)
    with _CACHE_LOCK:
        old, kept = _CACHE.get(network, (b"", {}))
        if old != state:
            kept = {}
            _CACHE[network] = state, kept
        if settings not in kept:
            modules = [network] if whole is None else [whole.generator, whole.segmentor]
            kept[settings] = [_Part(module, settings) for module in modules]
        parts = kept[settings]
    if whole is None:
        return parts[0]
    return EnhancedSegmentor(parts[0], parts[1], whole.sge, whole.size_divisor).eval()


_CACHE: WeakKeyDictionary[nn.Module, tuple[bytes, dict[_Settings, list[Any]]]] = WeakKeyDictionary()
_CACHE_LOCK = threading.Lock()
_MAKE_LOCK = threading.Lock()  # the exporter of torch has global state


class _Part(nn.Module):
    """A module that is made to run on a backend when it is first called."""

    def __init__(self, module: nn.Module, settings: _Settings) -> None:
        super().__init__()
        with torch.inference_mode(False), torch.no_grad():
            # A copy: what was prepared must neither keep the network alive nor change with it.
            self._source: list[nn.Module] = [copy.deepcopy(module).eval()]  # in a list: not a submodule
        self._make = {"compiled": _compiled, "onnxruntime": _onnxruntime, "openvino": _openvino}[settings.backend]
        self._settings = settings
        self._run: Run | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the module maps ``x``, ``(N, C, H, W)``, to."""
        if self._run is None:
            with _MAKE_LOCK:
                if self._run is None:
                    self._run = self._make(self._source[0], x, self._settings)
                    self._source.clear()
        return self._run(x)


def onnx_graph(module: nn.Module, x: torch.Tensor) -> bytes:
    """The module in eval mode as an ONNX graph ``image`` to ``pred``, with N, H and W left open.

    Args:
        module: maps ``(N, C, H, W)`` to ``(N, K, H, W)``; it must not branch on values.
        x: an example.
    """
    open_axes = {0: "batch", 2: "height", 3: "width"}
    graph = io.BytesIO()
    # Inference mode and autocast of the caller must not get into the graph.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        example = x.detach()[:1].clone().contiguous()
        with warnings.catch_warnings():
            # The exporter through TorchScript is the quicker one, and its time is part of every start-up; that it is
            # called deprecated is known.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(), (example,), graph, dynamo=False,  # type: ignore[arg-type]  # it takes a file object too
                input_names=["image"], output_names=["pred"], dynamic_axes={"image": open_axes, "pred": open_axes},
            )  # fmt: skip
    return graph.getvalue()


def _compiled(module: nn.Module, x: torch.Tensor, settings: _Settings) -> Run:
    compiled, size = torch.compile(module), settings.batch_size

    def run(x: torch.Tensor) -> torch.Tensor:
        # A smaller batch is filled up: to compile for its size takes far longer than the slices.
        missing = size - len(x)
        return compiled(torch.cat((x, x[-1:].expand(missing, -1, -1, -1))))[: len(x)] if missing > 0 else compiled(x)

    run(x)  # compiles
    return run


def _onnxruntime(module: nn.Module, x: torch.Tensor, settings: _Settings) -> Run:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = settings.threads, 1
    # Threads that wait for work sleep: G and S have a pool each, and torch works between them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_graph(module, x), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": x.contiguous().numpy()})[0])


def _openvino(module: nn.Module, x: torch.Tensor, settings: _Settings) -> Run:
    core = import_openvino().Core()
    options = {
        # Left to itself it takes bfloat16 where the processor has it.
        "INFERENCE_PRECISION_HINT": "bf16" if settings.amp else "f32",
        "INFERENCE_NUM_THREADS": settings.threads,
        "ENABLE_CPU_PINNING": False,  # it would bind threads to cores that other work of the process needs too
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(onnx_graph(module, x)), "CPU", options)
    local = threading.local()  # a request serves one thread at a time

    def run(x: torch.Tensor) -> torch.Tensor:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return torch.from_numpy(local.request.infer({0: x.contiguous().numpy()})[0])

    return run


def import_onnxruntime() -> Any:
    """The package onnxruntime without its telemetry.

    From 1.29 on its builds for Linux too give the machine an identifier (in the user's cache folder) and report use to
    a server, unless this is set before the package is imported.
    """
    if "onnxruntime" not in sys.modules:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def import_openvino() -> Any:
    """The package openvino without its telemetry, which would report every import to a server."""
    if "openvino" not in sys.modules:
        name = "openvino_telemetry"
        before = sys.modules.get(name)
        sys.modules[name] = None  # type: ignore[assignment]  # importing it fails, and openvino does without
        try:
            import openvino  # noqa: F401
        finally:
            del sys.modules[name]
            if before is not None:
                sys.modules[name] = before
    return sys.modules["openvino"]


def _digest(network: nn.Module) -> bytes:
    """A hash of all weights and buffers."""
    total = hashlib.sha256()
    for tensors in (network.named_parameters(), network.named_buffers()):
        for name, tensor in tensors:
            total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.digest()
