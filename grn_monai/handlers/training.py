"""Handlers that make a training repeatable and stop it in time."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from operator import length_hint
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.handlers import EarlyStopHandler
from torch import nn

from grn_monai.errors import InputError, listed
from grn_monai.handlers.record import on_host, scalars

__all__ = ["EarlyStop", "NonFiniteStop", "SeedEpochs"]


class SeedEpochs:
    """Seed every random generator at the start of each epoch from the seed and the epoch's number.

    An epoch's data order, augmentation and noise are then a function of ``(seed, epoch)`` alone, so that a run
    resumed after epoch n repeats what the uninterrupted run did in epoch n + 1. A sampler or batch sampler of the data
    loader that has a ``set_epoch`` (torch's ``DistributedSampler``, :class:`grn_monai.data.TwoStreamBatchSampler`) is
    told the epoch, counted from 1.

    Args:
        seed: the run's seed.
        dataset: a dataset whose random MONAI transforms run in this process (``num_workers=0``).
    """

    def __init__(self, seed: int, dataset: Any = None) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for the epoch that starts."""
        # Consecutive integers would make epoch 1 of seed 1 equal epoch 2 of seed 0.
        rank = getattr(engine.state, "rank", 0)
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch, rank]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # third-party transforms may use it
        torch.manual_seed(seed)
        if self.dataset is not None:
            set_rnd(self.dataset, seed=seed)
        loader = engine.state.dataloader
        for name in ("batch_sampler", "sampler"):
            set_epoch = getattr(getattr(loader, name, None), "set_epoch", None)
            if set_epoch is not None:
                set_epoch(engine.state.epoch)
        # ignite makes the epoch's iterator after this event: in the first epoch of a run there is none yet, later the
        # one before is found to be exhausted. With an epoch_length of its own it is not, and would go on with the old
        # order, from a place that a resumed run cannot know.
        length = engine.state.epoch_length
        if engine._dataloader_iter is not None and length_hint(loader, length) != length:
            engine.set_data(loader)


def _scans(batch: Any, key: str) -> list[str]:
    """The scans of a batch (a dict, or the decollated list of dicts), each once."""
    names: list[Any] = []
    for item in batch if isinstance(batch, list) else [batch]:
        value = item.get(key) if isinstance(item, Mapping) else None
        names += value if isinstance(value, list | tuple) else [value]
    return [str(name) for name in dict.fromkeys(names) if name is not None]


def _scaled(engine: Engine) -> bool:
    """Whether a float16 gradient scaler skips the steps whose gradients overflow."""
    scalers = [*vars(engine.state).values(), getattr(engine, "scaler", None)]
    return any(isinstance(s, torch.amp.GradScaler) and s.is_enabled() for s in scalers)


class NonFiniteStop:
    """Stop a training when a loss, a gradient norm or a weight is NaN or infinite, before such weights are saved.

    Looked at are all 0-d scalars of the trainer's output after an iteration, and after each epoch the weights of the
    trainer's ``network``, ``generator`` and ``discriminator`` and of those in its ``modules``, as far as it has them.
    Gradient norms (``…grad_norm…``) may overflow while a float16 gradient scaler is at work, which then skips the
    step.

    Attach it to the trainer before the handlers that validate and save.

    Args:
        interval: iterations between two looks, from 1. A look copies the scalars from the device, which waits there
            for the iteration to end.

    Raises:
        InputError: an interval below 1. While training: a value that is not finite; the error names all terms and the
            scans of the batch.
    """

    def __init__(self, interval: int = 1) -> None:
        if interval < 1:
            raise InputError("interval", repr(interval), "a whole number from 1", "Correct the option.")
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self.check_output)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_weights)

    def check_output(self, engine: Engine) -> None:
        """Look at the scalars of the iteration.

        Raises:
            InputError: one of them is NaN or infinite.
        """
        terms = scalars(engine.state.output)
        broken = [k for k, v in terms.items() if not math.isfinite(v)]
        if broken and _scaled(engine):
            broken = [k for k in broken if "grad_norm" not in k]
        if broken:
            values = ", ".join(f"{k} {terms[k]:g}" for k in broken)
            every = f"; looked at every {self.interval} iterations" if self.interval > 1 else ""
            found = f"{values} at iteration {engine.state.iteration} (epoch {engine.state.epoch}{every})"
            raise self._error(found, terms, engine.state.batch)

    def check_weights(self, engine: Engine) -> None:
        """Look at the weights after an epoch.

        Raises:
            InputError: some are NaN or infinite, or a buffer, such as a running mean, is NaN.
        """
        named = {part: getattr(engine, part, None) for part in ("network", "generator", "discriminator")}
        for part, module in {**named, **getattr(engine, "modules", {})}.items():
            if not isinstance(module, nn.Module):
                continue
            good = {name: p.isfinite().all() for name, p in module.named_parameters()}
            # A buffer may hold −∞ for good reason: a mask of attention.
            good |= {name: ~b.isnan().any() for name, b in module.named_buffers()}
            broken = [name for name, ok in zip(good, on_host(list(good.values())), strict=True) if not ok]
            if broken:
                found = (
                    f"weights of {part} that are NaN or infinite ({listed(broken)}) after epoch {engine.state.epoch}"
                )
                raise self._error(found, scalars(engine.state.output))

    @staticmethod
    def _error(found: str, terms: Mapping[str, float], batch: Any = None) -> InputError:
        if terms:
            found += f"; all terms: {', '.join(f'{k} {v:.4g}' for k, v in terms.items())}"
        named = False
        for key, noun in (("scan", "scans"), ("unlabeled_scan", "unlabelled scans")):
            if scans := _scans(batch, key):
                found += f"; {noun}: {listed(scans)}"
                named = True
        return InputError(
            "training",
            found,
            "finite losses, gradients and weights",
            f"Look at {'these' if named else 'the'} scans (`python -m data_prep check`), lower learning_rate, or "
            "switch off amp. The last good checkpoint was kept.",
        )


class EarlyStop(EarlyStopHandler):
    """Stop a training when a validation metric has not fallen for some epochs.

    Attach it to the trainer, after the handler that validates (MONAI's sits on the validator and needs the trainer
    set later, a circle in a config). Its counter can be saved and restored.

    Args:
        evaluator: the validator.
        metric: name in ``evaluator.state.metrics``; lower is better.
        patience: epochs without improvement after which training stops.
        min_delta: smaller improvements do not count.
    """

    def __init__(self, evaluator: Engine, metric: str, patience: int = 5, min_delta: float = 0.0) -> None:
        self.evaluator = evaluator
        super().__init__(
            patience=patience,
            score_function=lambda _: -float(evaluator.state.metrics[metric]),
            min_delta=min_delta,
        )

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        self.set_trainer(engine)
        super().attach(engine)

    def __call__(self, engine: Engine) -> None:
        """Count the epoch, if it was validated."""
        if self.evaluator.state.epoch == engine.state.epoch:
            super().__call__(engine)

    @property
    def stopped(self) -> bool:
        """Whether the patience is used up."""
        return self._handler is not None and self._handler.counter >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Counter and best score."""
        return dict(self._handler.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._handler.load_state_dict(state_dict)
