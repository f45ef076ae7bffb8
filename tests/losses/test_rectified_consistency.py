"""Rectified consistency (URPC): the formula written out, and large logits."""

from __future__ import annotations

import pytest
import torch

from grn_monai.losses import rectified_consistency


def test_formula_written_out() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 3, 4, 5, generator=rng, dtype=torch.float64) for _ in range(4)]
    p = [x.softmax(1) for x in logits]
    mean = sum(p) / 4
    losses = []
    for s in p:
        d = torch.zeros(2, 4, 5, dtype=torch.float64)
        for c in range(3):
            d += mean[:, c] * (mean[:, c] / s[:, c]).log()
        squares = torch.stack([(mean[:, c] - s[:, c]) ** 2 * (-d).exp() for c in range(3)])
        losses.append(squares.mean() / ((-d).exp().mean() + 1e-8) + d.mean())
    torch.testing.assert_close(rectified_consistency(logits), torch.stack(losses).mean())


def test_two_pixels_by_hand() -> None:
    a, b = torch.tensor([0.8, 0.2]), torch.tensor([0.4, 0.6])
    d_a = 0.6 * torch.tensor(0.6 / 0.8).log() + 0.4 * torch.tensor(0.4 / 0.2).log()
    d_b = 0.6 * torch.tensor(0.6 / 0.4).log() + 0.4 * torch.tensor(0.4 / 0.6).log()
    loss = rectified_consistency([p.log().reshape(1, 2, 1, 1) for p in (a, b)])
    assert loss.item() == pytest.approx((0.04 + d_a + 0.04 + d_b).item() / 2, abs=1e-6)


def test_agreement_is_zero() -> None:
    x = torch.randn(2, 7, 4, 4)
    assert rectified_consistency([x, x + 3, x]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_logits_are_finite_with_their_gradients(scale: float) -> None:
    logits = [(torch.randn(2, 7, 4, 4).sign() * scale).requires_grad_() for _ in range(4)]
    loss = rectified_consistency(logits)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 1000  # surely different: not cut off
    for x in logits:
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


def test_gradient_flows_through_the_mean() -> None:
    logits = [torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *x: rectified_consistency(x), logits)


def test_one_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        rectified_consistency([torch.zeros(1, 2, 3, 3)])
