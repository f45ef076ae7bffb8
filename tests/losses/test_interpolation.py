"""Interpolation consistency: derangements, mixtures by hand, linear networks are consistent."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from grn_monai.losses import Interpolation, derangement


@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_no_image_is_its_own_partner(n: int) -> None:
    torch.manual_seed(0)
    for _ in range(200):
        order = derangement(n)
        assert sorted(order.tolist()) == list(range(n))
        assert (order != torch.arange(n)).all()


def test_every_derangement_is_equally_likely() -> None:
    torch.manual_seed(0)
    counts = Counter(tuple(derangement(4).tolist()) for _ in range(9000))
    assert len(counts) == 9  # subfactorial of 4
    assert max(counts.values()) < 1.15 * 1000
    assert min(counts.values()) > 0.85 * 1000


def test_a_single_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1)


def test_mixture_by_hand() -> None:
    pairs = Interpolation(torch.tensor([1, 2, 0]), torch.tensor([1.0, 0.25, 0.5]))
    x = torch.tensor([4.0, 8.0, 0.0]).reshape(3, 1, 1, 1)
    assert pairs.mix(x).flatten().tolist() == [4.0, 2.0, 2.0]


def test_shares_are_beta_and_one_for_all_where_asked() -> None:
    torch.manual_seed(0)
    shares = torch.stack([Interpolation.draw(8, 0.2).share for _ in range(500)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)  # variance of Beta(a, a)
    one = Interpolation.draw(8, 0.2, per="batch").share
    assert one.shape == (8,)
    assert one.unique().numel() == 1
    assert Interpolation.draw(8, 0.2).share.unique().numel() == 8


def test_loss_by_hand() -> None:
    pairs = Interpolation(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    probabilities = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    mixed = torch.tensor([[0.5, 0.5], [0.6, 0.4]])
    loss = pairs.loss(*(p.log().reshape(2, 2, 1, 1) for p in (mixed, probabilities)))
    # targets: 0.75 * 0.9 + 0.25 * 0.3 = 0.75 and 0.5 * 0.3 + 0.5 * 0.9 = 0.6, with their complements
    assert loss.item() == pytest.approx((2 * 0.25**2 + 0) / 4, abs=1e-6)


def test_draws_repeat_with_the_seed_and_keep_the_type() -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(Interpolation.draw(4))
    assert torch.equal(draws[0].share, draws[1].share)
    assert torch.equal(draws[0].partner, draws[1].partner)
    assert draws[0].mix(torch.zeros(4, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
