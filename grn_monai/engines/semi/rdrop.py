"""R-Drop: two passes of a network under different dropout agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from grn_monai.errors import InputError
from grn_monai.losses import symmetric_kl

from .._common import check_optimizer, unwrapped
from ..semi_supervised_trainer import Outputs, SemiSupervisedTrainer, TwoStreams

__all__ = ["RDropTrainer"]


class RDropTrainer(SemiSupervisedTrainer):
    """``L = ½ [L_sup(1) + L_sup(2)] + w(t) · ½ [KL(p1‖p2) + KL(p2‖p1)]`` of two passes under independent dropout masks.

    The divergence is summed over classes, and its mean taken over the pixels of the unlabelled images. The output has
    the further scalar ``kl_element_mean``, the mean over classes too, in whose terms the reference code gives its
    weight.

    Args:
        second_network: the reference code's reading: another network of the same kind with other first weights takes
            the place of the second pass, and ``L_sup(1) + L_sup(2)`` that of the mean. ``optimizer`` has to step
            both. Validated and saved is the first.
        compat_axis: keep an error of the reference code, see ``grn_monai.losses.symmetric_kl``.
        max_weight: as in ``SemiSupervisedTrainer``; by default 4, that of the reference code.
        **kwargs: as in ``SemiSupervisedTrainer``.

    Raises:
        InputError: for one network without dropout, or the same network twice: both passes would be equal and the
            divergence 0.
        ValueError: for an optimizer that does not step the second network.

    Source: Wu et al., "R-Drop: Regularized Dropout for Neural Networks", 2021.
    """

    method = "rdrop"

    def __init__(
        self,
        *args: Any,
        second_network: nn.Module | None = None,
        compat_axis: bool = False,
        **kwargs: Any,
    ) -> None:
        self.second_network = second_network
        self.compat_axis = compat_axis
        kwargs.setdefault("max_weight", 4.0)
        super().__init__(*args, **kwargs)
        if second_network is not None:
            if unwrapped(second_network) is unwrapped(self.network):
                mend = "Give another network, or none and dropout (0.1)."
                raise InputError("second_network", "the network itself", "a network of its own", mend)
            check_optimizer("optimizer", self.optimizer, {"second_network": second_network}, {})
        elif not any(isinstance(m, _DropoutNd) and m.p > 0 for m in self.network.modules()):
            mend = "Give dropout (0.1), or two networks."
            raise InputError("network", "no dropout", "dropout above 0: without it both passes are equal", mend)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The second network, which a resumed run needs."""
        return {} if self.second_network is None else {"second_network": self.second_network}

    def forward(self, engine: SemiSupervisedTrainer, images: torch.Tensor) -> Outputs:
        """The logits of both passes."""
        second = engine.network if self.second_network is None else self.second_network.train()
        return engine.inferer(images, engine.network), engine.inferer(images, second)

    def supervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """The mean of the losses of both passes, or with two networks their sum; 0-d."""
        losses = torch.stack([engine.loss_function(x, batch.labels).mean() for x in batch.outputs])
        return losses.mean() if self.second_network is None else losses.sum()

    def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """The symmetric divergence of both passes, 0-d."""
        first, second = batch.outputs_unlabelled
        loss = symmetric_kl(first, second, self.compat_axis)
        elements = loss if self.compat_axis else loss / first.shape[1]
        engine.state.output["kl_element_mean"] = elements.detach()
        return loss
