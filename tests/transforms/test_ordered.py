"""OrderedLayers against enumeration in float64, and the properties that define it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from grn_monai.errors import InputError
from grn_monai.transforms import OrderedLayers, OrderedLayersd, decode_ordered


def random_probabilities(shape: tuple[int, ...], seed: int = 0, sharpness: float = 3.0) -> torch.Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (sharpness * logits).softmax(0)


def labellings(layers: int, depth: int) -> np.ndarray:
    """All ordered labellings of one A-line, from every choice of layers + 1 sorted boundaries."""
    rows = set()
    for cut in itertools.combinations_with_replacement(range(depth + 1), layers + 1):
        states = np.searchsorted(cut, np.arange(depth), side="right")
        rows.add(tuple(int(s) % (layers + 1) for s in states))
    return np.array(sorted(rows))


def score(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Summed log-probability along the last axis: ``(C, ..., Z)`` and ``(..., Z)``."""
    return np.take_along_axis(log_p, labels[None].astype(int), 0)[0].sum(-1)


def is_ordered(labels: np.ndarray) -> bool:
    """Along the last axis: foreground in one run without gaps, values never falling."""
    for line in labels.reshape(-1, labels.shape[-1]):
        inside = np.flatnonzero(line)
        if inside.size and (inside[-1] - inside[0] + 1 != inside.size or (np.diff(line[inside].astype(int)) < 0).any()):
            return False
    return True


@pytest.mark.parametrize(("layers", "depth"), [(1, 7), (2, 6), (3, 6), (6, 5), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_enumeration(layers: int, depth: int, dtype: torch.dtype) -> None:
    p = random_probabilities((layers + 1, 40, depth)).to(dtype)
    candidates = labellings(layers, depth)
    log_p = np.log(p.double().numpy())
    best = np.array([score(log_p[:, None, i].repeat(len(candidates), 1), candidates).argmax() for i in range(40)])
    np.testing.assert_array_equal(decode_ordered(p)[0].numpy(), candidates[best])


def test_enumeration_helper_counts_what_it_should() -> None:
    assert {tuple(row) for row in labellings(1, 2)} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert (0, 1, 0, 1) not in {tuple(row) for row in labellings(1, 4)}


@pytest.mark.parametrize("seed", range(3))
def test_no_sampled_ordered_labelling_scores_higher(seed: int) -> None:
    p = random_probabilities((7, 6, 5, 60), seed)
    labels = decode_ordered(p)[0].numpy()
    assert is_ordered(labels)
    log_p, best = np.log(p.numpy()), score(np.log(p.numpy()), labels)
    rng = np.random.default_rng(seed)
    for _ in range(200):
        cuts = np.sort(rng.integers(0, 61, (6, 5, 7)), -1)
        other = (np.arange(60)[:, None] >= cuts[..., None, :]).sum(-1) % 7
        assert (score(log_p, other) <= best + 1e-9).all()


def test_ordered_argmax_is_kept() -> None:
    truth = torch.from_numpy(np.repeat([0, 1, 2, 3, 4, 5, 6, 0], [3, 4, 9, 2, 8, 2, 15, 5]))
    p = torch.nn.functional.one_hot(truth, 7).T[:, None].float() * 0.3 + 0.1  # certain of nothing
    assert torch.equal(decode_ordered(p), p.argmax(0, keepdim=True).to(torch.uint8))
    assert torch.equal(decode_ordered(p)[0, 0], truth.to(torch.uint8))


@pytest.mark.parametrize("absent", [(), (3,), (1, 2), (2, 3, 4), (1, 2, 3, 4, 5, 6)])
def test_layers_may_be_absent(absent: tuple[int, ...]) -> None:
    truth = torch.tensor([0, 0] + [s for s in range(1, 7) if s not in absent for _ in range(3)] + [0, 0])
    p = torch.nn.functional.one_hot(truth, 7).T[:, None].float().clamp(0.01, 0.94)
    assert torch.equal(decode_ordered(p)[0, 0], truth.to(torch.uint8))


def test_island_out_of_order_is_removed() -> None:
    truth = np.repeat([0, 1, 2, 4, 6], [4, 5, 8, 8, 10])
    noisy = truth.copy()
    noisy[10:12] = 6
    noisy[30] = 1
    p = torch.nn.functional.one_hot(torch.from_numpy(noisy), 7).T[:, None].float().clamp(0.02, 0.88)
    np.testing.assert_array_equal(decode_ordered(p)[0, 0].numpy(), truth)


def test_hard_zeros_do_not_rule_out_a_line() -> None:
    truth = torch.from_numpy(np.repeat([0, 1, 2, 1, 3], [4, 5, 1, 5, 10]))  # one-hot, and not ordered
    labels = decode_ordered(torch.nn.functional.one_hot(truth, 7).T[:, None].float())[0, 0]
    assert labels.tolist() == [0] * 4 + [1] * 11 + [3] * 10


def test_long_lines_in_float32_agree_with_float64() -> None:
    p = random_probabilities((7, 300, 512), 5, sharpness=8)
    labels = decode_ordered(p.float())[0].numpy()
    exact = decode_ordered(p)[0].numpy()
    log_p = np.log(np.maximum(p.numpy(), 1e-12))
    np.testing.assert_allclose(score(log_p, labels), score(log_p, exact), rtol=1e-6)


@pytest.mark.parametrize("depth_dim", [1, 2, 3, -1, -2])
def test_depth_dim_and_chunks(depth_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    p = random_probabilities((7, 9, 10, 11), 2)
    expected = decode_ordered(p.movedim(depth_dim, -1)).movedim(-1, depth_dim)
    monkeypatch.setitem(decode_ordered.__globals__["_CHUNK_STATES"], "cpu", 64)
    assert torch.equal(decode_ordered(p, depth_dim), expected)


def test_log_input_and_half_precision() -> None:
    p = random_probabilities((7, 8, 9, 30), 3)
    expected = decode_ordered(p)
    assert torch.equal(decode_ordered(p.log(), log_input=True), expected)
    half = decode_ordered(p.to(torch.bfloat16))
    assert is_ordered(half[0].numpy())
    assert (half == expected).float().mean() > 0.98


def test_transform_keeps_geometry_and_twin_agrees() -> None:
    p = MetaTensor(random_probabilities((7, 4, 5, 20)).float(), affine=torch.diag(torch.tensor([1.0, 2, 3, 1])))
    labels = OrderedLayers()(p)
    assert labels.shape == (1, 4, 5, 20)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.affine, p.affine)
    assert is_ordered(labels[0].numpy())
    assert torch.equal(OrderedLayersd("pred")({"pred": p})["pred"], labels)
    plain = OrderedLayersd("pred", ordered=False)({"pred": p})["pred"]
    assert torch.equal(plain, p.argmax(0, keepdim=True).to(torch.uint8))
    assert not is_ordered(plain[0].numpy()), "the data must be able to tell the two apart"


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"shape \(5, 4, 4, 4\).*Set num_layers"):
        OrderedLayers()(torch.rand(5, 4, 4, 4))
    with pytest.raises(InputError, match="depth_dim 0"):
        decode_ordered(torch.rand(7, 4, 4, 4), depth_dim=0)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("channel", range(7))
@pytest.mark.parametrize("depth", [0, 3, 7])
def test_nan_is_found_wherever_it_is(ordered: bool, channel: int, depth: int) -> None:
    bad = random_probabilities((7, 4, 4, 8))
    bad[channel, 1, 1, depth] = torch.nan
    with pytest.raises(InputError, match="NaN among the probabilities"):
        OrderedLayers(ordered=ordered)(bad)
