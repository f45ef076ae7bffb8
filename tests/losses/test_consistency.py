"""Masked consistency, entropy and the symmetric divergence, against values by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from grn_monai.losses import masked_consistency, predictive_entropy, symmetric_kl


def probabilities(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(1)


class TestEntropy:
    def test_an_even_guess_has_the_most_and_a_sure_one_none(self) -> None:
        even = torch.full((2, 7, 3, 4), 1 / 7, dtype=torch.float64)
        assert predictive_entropy(even).shape == (2, 1, 3, 4)
        torch.testing.assert_close(
            predictive_entropy(even), torch.full((2, 1, 3, 4), math.log(7)).double(), atol=1e-5, rtol=0
        )
        sure = F.one_hot(torch.zeros(2, 3, 4, dtype=torch.long), 7).movedim(-1, 1).double()
        assert predictive_entropy(sure).abs().max() < 2e-6

    def test_it_is_that_of_torch(self) -> None:
        p = probabilities(2, 7, 3, 4)
        expected = torch.distributions.Categorical(probs=p.movedim(1, -1)).entropy()[:, None]
        torch.testing.assert_close(predictive_entropy(p), expected, atol=1e-5, rtol=0)


class TestMaskedConsistency:
    def test_over_all_pixels_it_is_the_mean_squared_error(self) -> None:
        p, q = probabilities(2, 7, 3, 4), probabilities(2, 7, 3, 4, seed=1)
        torch.testing.assert_close(masked_consistency(p, q, torch.ones(2, 1, 3, 4)), F.mse_loss(p, q))

    def test_pixels_outside_do_not_count(self) -> None:
        p, q = probabilities(2, 7, 3, 4), probabilities(2, 7, 3, 4, seed=1)
        mask = torch.zeros(2, 1, 3, 4, dtype=torch.bool)
        mask[0, 0, 1, 2] = mask[1, 0, 0, 0] = True
        value = ((p[0, :, 1, 2] - q[0, :, 1, 2]) ** 2).sum() + ((p[1, :, 0, 0] - q[1, :, 0, 0]) ** 2).sum()
        torch.testing.assert_close(masked_consistency(p, q, mask), value / (7 * 2))
        torch.testing.assert_close(masked_consistency(p, q, mask, classes=2), value / (2 * 2))

    def test_an_empty_mask_costs_nothing_and_breaks_nothing(self) -> None:
        p = probabilities(1, 7, 2, 2).float().requires_grad_()
        loss = masked_consistency(p, probabilities(1, 7, 2, 2, seed=1).float(), torch.zeros(1, 1, 2, 2))
        loss.backward()
        assert loss == 0
        assert p.grad is not None
        assert (p.grad == 0).all()


class TestSymmetricKL:
    def test_by_hand(self) -> None:
        """p = (¾, ¼), q = (¼, ¾): each divergence is ½ ln 3; the second pixel agrees."""
        first = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]).T.reshape(1, 2, 2, 1)
        second = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]).T.reshape(1, 2, 2, 1)
        assert symmetric_kl(first, second).item() == pytest.approx(0.25 * math.log(3))

    def test_it_is_the_mean_of_both_divergences_of_torch(self) -> None:
        x, y = (torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1))
        p, q = x.log_softmax(1), y.log_softmax(1)
        both = [F.kl_div(a, b, reduction="sum", log_target=True) / (2 * 3 * 4) for a, b in ((q, p), (p, q))]
        torch.testing.assert_close(symmetric_kl(x, y), (both[0] + both[1]) / 2)
        torch.testing.assert_close(symmetric_kl(y, x), symmetric_kl(x, y))

    def test_the_error_of_the_reference_on_request(self) -> None:
        x, y = (torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1))
        p, q = x.log_softmax(-1), y.log_softmax(-1)
        both = [F.kl_div(a, b, reduction="none", log_target=True).mean() for a, b in ((q, p), (p, q))]
        torch.testing.assert_close(symmetric_kl(x, y, compat_axis=True), (both[0] + both[1]) / 2)
        assert symmetric_kl(x, y, compat_axis=True) < symmetric_kl(x, y)

    @pytest.mark.parametrize("compat", [False, True])
    def test_equal_ones_and_huge_ones(self, compat: bool) -> None:
        x = torch.randn(1, 7, 3, 4)
        assert symmetric_kl(x, x, compat) == 0
        huge = (1e4 * x).requires_grad_()
        loss = symmetric_kl(huge, -1e4 * x, compat)
        loss.backward()
        assert loss.isfinite()
        assert huge.grad is not None
        assert huge.grad.isfinite().all()
