"""What trainers with several optimizers share: a gradient scaler for each, and the step on a loss of named terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import Trainer
from monai.engines.workflow import Workflow
from torch import nn
from torch.optim.optimizer import Optimizer

from ._common import at_least_float32, grad_norm, make_scaler

__all__ = ["ScaledTrainer", "Terms"]

Terms = dict[str, tuple[float, torch.Tensor]]
"""Weight and 0-d loss of each term of a loss, by its name in the output; ``""`` for one that has no entry there."""


class ScaledTrainer(Trainer):
    """A trainer whose gradient scalers live in ``engine.state``, under the names given to ``_add_scaler``."""

    def _refuse_unsupported(self, accumulation_steps: int, compiled: bool, *networks: str) -> None:
        """Refuse what MONAI's trainer offers and these trainers do not.

        Raises:
            ValueError: saying what to do instead; ``networks`` are the names of those that a config can compile.
        """
        if accumulation_steps != 1:
            raise ValueError(
                f"{type(self).__name__} does not accumulate gradients: got accumulation_steps={accumulation_steps}. "
                "Raise the batch size instead."
            )
        if compiled:
            calls = " and ".join(f"`{name}.compile()`" for name in networks)
            raise ValueError(
                f"{type(self).__name__} does not compile networks itself. Compile them in the config instead, "
                f"in place, so that checkpoints keep their names: {calls}."
            )

    def _add_scaler(self, name: str) -> None:
        """Keep a gradient scaler in ``engine.state`` under ``name`` and in the trainer's state dict."""
        setattr(self.state, name, make_scaler(self.state.device, self.amp, self.amp_kwargs))
        self._state_dict_user_keys.append(name)

    def state_dict(self) -> dict[str, Any]:
        """The engine's state with each scaler as its own state dict (tensors and numbers only)."""
        state = dict(super().state_dict())
        return {k: v.state_dict() if isinstance(v, torch.amp.GradScaler) else v for k, v in state.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        scalers = {k: v for k, v in vars(self.state).items() if isinstance(v, torch.amp.GradScaler)}
        super().load_state_dict(state_dict)
        for name, scaler in scalers.items():
            scaler.load_state_dict(state_dict[name])
            setattr(self.state, name, scaler)  # ignite put the plain dict there

    def run(self) -> None:
        """Train. Called again, it goes on from the state it is in."""
        # Trainer.run would make a CUDA scaler at every call and so forget the scale.
        Workflow.run(self)

    @staticmethod
    def _autocast(engine: Any) -> torch.autocast:
        kwargs = dict(engine.amp_kwargs)
        return torch.autocast(engine.state.device.type, enabled=engine.amp and kwargs.pop("enabled", True), **kwargs)

    @staticmethod
    def _weighted(engine: Any, terms: Terms, prefix: str = "") -> torch.Tensor:
        """The weighted sum of the terms, 0-d; each goes into the output under its name, unweighted."""
        for name, (_, term) in terms.items():
            if name:
                engine.state.output[prefix + name] = term.detach()
        return torch.stack([weight * at_least_float32(term) for weight, term in terms.values()]).sum()

    @staticmethod
    def _step(
        engine: Any, scaler: torch.amp.GradScaler, optimizers: Sequence[Optimizer], norms: Mapping[str, nn.Module]
    ) -> None:
        """Step optimizers on scaled gradients; the unscaled norms of modules go into the output under their names."""
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        engine.state.output.update({name: grad_norm(module) for name, module in norms.items()})
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
