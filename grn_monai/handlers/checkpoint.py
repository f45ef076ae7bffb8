"""Checkpoints: the best model of a metric, and a state from which a run goes on exactly."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.handlers import CheckpointSaver

from grn_monai.errors import InputError
from grn_monai.files import file_stamps, replacing

__all__ = ["BestCheckpointSaver", "ModelLoader", "ResumeHandler", "fingerprint", "load_model", "save_atomic"]

logger = logging.getLogger(__name__)


def save_atomic(obj: Any, path: str | os.PathLike[str]) -> None:
    """``torch.save`` to a temporary name in the same folder, then rename: a kill leaves the old file or the new."""
    with replacing(path) as temporary:
        torch.save(obj, temporary)


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Load a checkpoint of tensors, numbers and strings (never arbitrary pickles).

    Raises:
        InputError: when the file is missing or is not such a checkpoint.
    """
    if not Path(path).is_file():
        raise InputError(
            path,
            "no file",
            "a checkpoint",
            "Train the bundle first, or give the checkpoint's path as `ckpt_path`.",
        )
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise InputError(
            path,
            f"a file that cannot be read as a checkpoint ({type(error).__name__})",
            "a file written by this project's training (tensors only)",
            "Train again, or give another `ckpt_path`.",
        ) from error


def is_plain(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is a state dict itself, as a packed bundle has it for ``monai.bundle.load``."""
    return (
        isinstance(checkpoint, Mapping)
        and bool(checkpoint)
        and all(isinstance(value, torch.Tensor) for value in checkpoint.values())
    )


def load_model(
    path: str | os.PathLike[str],
    network: torch.nn.Module,
    key: str = "model",
    map_location: Any = "cpu",
    options: Mapping[str, Any] | None = None,
) -> torch.nn.Module:
    """Fill a network from a checkpoint; every weight has to fit.

    Args:
        path: checkpoint file of a training, or the plain weights (a state dict) of a pack.
        network: the network to fill, in place.
        key: the entry of the checkpoint that holds the weights; plain weights need none.
        map_location: device to load to.
        options: what has to be as in training, such as the slice size, where the checkpoint says it.

    Returns:
        the same network.

    Raises:
        InputError: when the file, the entry or a weight is missing or does not fit, or an option differs. Nothing
            is ever left at its random start in silence.
    """
    checkpoint = load_checkpoint(path, map_location)
    if is_plain(checkpoint):
        checkpoint = {key: checkpoint}
    if key not in checkpoint:
        raise InputError(
            path,
            f"entries {sorted(checkpoint)}",
            f"an entry {key!r}",
            "Give a model.pt of this bundle as `ckpt_path`.",
        )
    trained = checkpoint.get("options", {})
    for name, value in (options or {}).items():
        if trained.get(name, str(value)) != str(value):
            mend = f"Give `--{name} {trained[name]}`, or train with the other value."
            if name == "network_name":  # an overlay sets it, together with the network
                overlay = f"configs/network_{trained[name]}.yaml; the bundle's own network has none"
                mend = f"Give the overlay of the training ({overlay}), or another `ckpt_path`."
            raise InputError(path, f"a model trained with {name} {trained[name]}", f"{name} {value}", mend)
    try:
        network.load_state_dict(checkpoint[key])
    except RuntimeError as error:
        raise InputError(
            path,
            f"weights of another network ({str(error).splitlines()[1].strip()[:200]})",
            "the weights of this bundle's `network_def`",
            "Give the options (such as base_channels) that the model was trained with, or another `ckpt_path`.",
        ) from error
    return network


def fingerprint(*datalists: Sequence[Mapping[str, Any]]) -> str:
    """A digest of the files of data lists by path, size and time, to tell a resumed run from one on other data."""
    digest = hashlib.sha256()
    for items in datalists:
        for item in items:
            for key in ("image", "label"):
                if item.get(key) is not None:
                    digest.update(repr((key, str(item[key]), file_stamps(item[key]))).encode())
        digest.update(b"|")
    return digest.hexdigest()[:16]


class ModelLoader:
    """Fill a network from a checkpoint when an evaluator starts; see ``load_model`` for what is refused.

    MONAI's ``CheckpointLoader`` fills what fits and leaves the rest at its random start.

    Args:
        path: checkpoint file.
        network: the network to fill.
        key: the entry of the checkpoint that holds the weights.
        options: what has to be as in training, such as the slice size; other values are refused.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        network: torch.nn.Module,
        key: str = "model",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.network = network
        self.key = key
        self.options = options

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights."""
        load_model(self.path, self.network, self.key, engine.state.device, self.options)


class BestCheckpointSaver(CheckpointSaver):
    """Keep the model with the lowest value of a metric, in one file, and remember that value across a resume.

    MONAI's saver starts its comparison anew in a resumed run and writes in place; this one does neither.

    Args:
        save_dir: folder of the file.
        save_dict: what to save, such as ``{"model": network}``.
        metric: name in ``engine.state.metrics``; lower is better.
        filename: name of the file.
        options: what inference has to repeat, such as slice size and orientation; saved as texts beside the weights.
    """

    def __init__(
        self,
        save_dir: str,
        save_dict: dict[str, Any],
        metric: str,
        filename: str = "model.pt",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            save_dir=save_dir,
            save_dict=save_dict,
            save_key_metric=True,
            key_metric_name=metric,
            key_metric_filename=filename,
            key_metric_negative_sign=True,
        )
        self.metric = metric
        self.options = {k: str(v) for k, v in (options or {}).items()}
        self.path = Path(save_dir) / filename
        self.best: float | None = None
        self.best_epoch = 0

    def metrics_completed(self, engine: Engine) -> None:
        """Save if the metric is the lowest yet (NaN never is)."""
        value = float(engine.state.metrics[self.metric])
        if value == value and (self.best is None or value < self.best):
            self.best, self.best_epoch = value, engine.state.epoch
            if engine.state.rank == 0:
                weights = {k: v.state_dict() for k, v in self.save_dict.items()}
                save_atomic({**weights, "options": self.options}, self.path)
            logger.info("epoch %d: best %s so far, %.4f", engine.state.epoch, self.metric, value)

    def state_dict(self) -> dict[str, Any]:
        """The best value and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


class ResumeHandler:
    """Save the whole state of a training after each epoch, and go on from it.

    Attach it to the trainer, after the handler that validates. Saved are the networks, every optimizer, the
    trainer's epoch, iteration and scalers, the validator's best metric and whatever else is given. Together with
    ``SeedEpochs`` a run that was killed and resumed reaches the same weights as one that was not.

    Args:
        path: the checkpoint file.
        modules: networks (and other objects with ``state_dict``/``load_state_dict``), by name. Those that the trainer
            names in ``modules`` are saved too.
        evaluator: the validator whose best metric belongs to the state.
        identity: what makes the run what it is (data, seed, options). A checkpoint of another is refused.
        resume: if true and the file exists, the run goes on from it.
        interval: epochs between two saves.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        modules: Mapping[str, Any],
        evaluator: Engine | None = None,
        identity: Mapping[str, Any] | None = None,
        resume: bool = True,
        interval: int = 1,
    ) -> None:
        self.path = Path(path)
        self.modules = dict(modules)
        self.evaluator = evaluator
        self.identity = {k: str(v) for k, v in (identity or {}).items()}
        self.resume = resume
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register on the trainer's start and after each epoch."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.save)

    def _optimizers(self, engine: Any) -> dict[str, Any]:
        return getattr(engine, "optimizers", None) or {"optimizer": engine.optimizer}

    def _modules(self, engine: Any) -> dict[str, Any]:
        """The modules given, and those that the trainer keeps for itself (a teacher, a discriminator)."""
        return {**self.modules, **getattr(engine, "modules", {})}

    def save(self, engine: Any) -> None:
        """Write the checkpoint (rank 0)."""
        if engine.state.rank != 0:
            return
        state = {
            "modules": {k: v.state_dict() for k, v in self._modules(engine).items()},
            "optimizers": {k: v.state_dict() for k, v in self._optimizers(engine).items()},
            "trainer": dict(engine.state_dict()),
            "identity": self._identity(),
        }
        if self.evaluator is not None:
            best = self.evaluator.state
            state["evaluator"] = {
                "best_metric": best.best_metric,
                "best_metric_epoch": best.best_metric_epoch,
            }
        save_atomic(state, self.path)

    _mend = "Use another output_dir, delete the file, or give `resume: false`."

    def _identity(self) -> dict[str, str]:
        """What makes the run what it is; with several processes their number, which multiplies the batch."""
        processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        return {**self.identity, **({"processes": str(processes)} if processes > 1 else {})}

    def _read(self, device: Any = "cpu") -> dict[str, Any]:
        """The checkpoint, if it is one of this run; options that only one of the two knows differ too."""
        state = load_checkpoint(self.path, map_location=device)
        saved, now = state.get("identity", {}), self._identity()
        names = dict.fromkeys([*now, *saved])
        other = [f"{k} {saved.get(k)!r}, now {now.get(k)!r}" for k in names if saved.get(k) != now.get(k)]
        if other:
            found = f"a checkpoint of another run ({'; '.join(other)})"
            raise InputError(self.path, found, "one of this run", self._mend)
        return state

    def check(self) -> None:
        """Refuse a checkpoint of another run now, where a training would meet it only after other work.

        Raises:
            InputError: as in ``load``.
        """
        if self.resume and self.path.is_file():
            self._read()

    def load(self, engine: Any) -> None:
        """Restore the checkpoint, if there is one and ``resume`` is set.

        Raises:
            InputError: when the file is damaged or belongs to other networks.
        """
        if not self.resume or not self.path.is_file():
            return
        state = self._read(engine.state.device)
        try:
            for name, module in self._modules(engine).items():
                module.load_state_dict(state["modules"][name])
            for name, optimizer in self._optimizers(engine).items():
                optimizer.load_state_dict(state["optimizers"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                self.path,
                f"a checkpoint of another configuration ({str(error).splitlines()[0][:200]})",
                "a checkpoint of this run",
                self._mend,
            ) from error
        # The number of epochs is the new run's to choose: a finished run can be trained on.
        trainer = {
            **state["trainer"],
            "max_epochs": engine.state.max_epochs,
            "epoch_length": engine.state.epoch_length,
        }
        engine.load_state_dict(trainer)
        if self.evaluator is not None and "evaluator" in state:
            self.evaluator.state.best_metric = state["evaluator"]["best_metric"]
            self.evaluator.state.best_metric_epoch = state["evaluator"]["best_metric_epoch"]
        logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)
        if any(getattr(m, "stopped", False) for m in self.modules.values()):
            logger.info("the run had ended early: nothing is left to train")
            engine.terminate()
