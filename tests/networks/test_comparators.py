"""The networks of the overlays network_*.yaml: their size, what the controls match, and what they refuse."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet
from torch import nn

from grn_monai.errors import InputError, find_input_error
from grn_monai.networks import (
    EnhancedSegmentor,
    RepeatChannels,
    ResNetGenerator,
    check_fit,
    check_name,
    count_flops,
    count_parameters,
    deeplab_v3,
    deeplab_v3_plus,
)
from tests.bundles.conftest import ROOT

CONFIGS = ROOT / "bundles" / "us_layers_supervised" / "configs"
needs_deeplab = pytest.mark.skipif(
    find_spec("segmentation_models_pytorch") is None, reason="segmentation_models_pytorch: make setup-deeplab"
)
COUNTS = {
    "unet": 661_727,
    "segresnet": 1_576_487,
    "vnet": 9_362_790,
    "swin_unetr_2d": 6_302_353,
    "deeplabv3plus": 26_672_855,
    "deeplabv3": 39_635_271,
    "one_stage": 3_626_321 + 661_727,
}
"""As GRN+'s Table 4 prints them, but DeepLab: named 26,672,855 (not printed), printed 39,635,271 (of DeepLabV3)."""
NAMES = ["unet", *sorted(path.stem.removeprefix("network_") for path in CONFIGS.glob("network_*.yaml"))]
CASES = [pytest.param(name, marks=[needs_deeplab] if "deeplab" in name else []) for name in NAMES]


def build(name: str) -> Any:
    """The network as inference.yaml and the overlay define it."""
    parser = ConfigParser()
    overlay = [] if name == "unet" else [str(CONFIGS / f"network_{name}.yaml")]
    parser.read_config([str(CONFIGS / "inference.yaml"), *overlay])
    assert parser["network_name"] == name
    torch.manual_seed(0)
    return parser.get_parsed_content("network_def")


def plain(width: int) -> nn.Module:
    return UNet(2, 1, 7, channels=[width * 2**i for i in range(5)], strides=(2, 2, 2, 2))


@pytest.mark.parametrize("name", [case for case in CASES if case.values[0] in COUNTS])
def test_parameters(name: str) -> None:
    network = build(name)
    assert count_parameters(network) == COUNTS[name]


@pytest.mark.parametrize("name", CASES)
def test_a_name_is_that_of_its_network_alone(name: str) -> None:
    network = build(name)
    check_name(network, name)
    check_name(network, "mine")
    with pytest.raises(InputError, match=f"network_name: found '{'unet' if name != 'unet' else 'wide'}' of a"):
        check_name(network, "unet" if name != "unet" else "wide")


@pytest.mark.parametrize("name", CASES)
def test_logits_of_all_classes_and_a_gradient_for_every_parameter(name: str) -> None:
    network = build(name).train()
    out = network(torch.randn(2, 1, 64, 96))
    assert out.shape == (2, 7, 64, 96)
    out.square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


def test_overlays_are_short() -> None:
    for path in CONFIGS.glob("network_*.yaml"):
        assert len(path.read_text().splitlines()) <= 15, path.name


# The controls, against S(G(x)) with the default generator.

SHAPE = (1, 1, 256, 256)


def enhanced() -> EnhancedSegmentor:
    return EnhancedSegmentor(ResNetGenerator(), build("unet"))


def test_wide_has_the_parameters_of_both_networks_as_nearly_as_a_width_can() -> None:
    target = count_parameters(enhanced())
    assert target == 3_626_321 + 661_727
    off = {width: abs(count_parameters(plain(width)) / target - 1) for width in range(30, 50)}
    assert count_parameters(build("wide")) == count_parameters(plain(min(off, key=off.__getitem__))) == 4_334_002
    assert min(off.values()) < 0.02


def test_wide_flops_has_their_arithmetic_as_nearly_as_a_width_can() -> None:
    target = count_flops(enhanced(), SHAPE)
    off = {width: abs(count_flops(plain(width), SHAPE) / target - 1) for width in range(33, 40)}
    assert count_flops(build("wide_flops"), SHAPE) == count_flops(plain(min(off, key=off.__getitem__)), SHAPE)
    assert min(off.values()) < 0.02
    assert count_parameters(build("wide_flops")) < 0.8 * count_parameters(enhanced())


def first_stride(network: nn.Module) -> Any:
    return next(part.stride for part in network.modules() if isinstance(part, nn.Conv2d))


def test_full_resolution_has_their_arithmetic_and_keeps_the_grid_in_its_first_level() -> None:
    network = build("full_resolution")
    assert count_flops(network, SHAPE) == pytest.approx(count_flops(enhanced(), SHAPE), rel=0.05)
    assert count_parameters(network) < 0.65 * count_parameters(enhanced())
    assert first_stride(build("unet")) == (2, 2)
    assert first_stride(network) == (1, 1)
    # Below that level it is the default network: as deep, and at its bottom as coarse.
    seen: list[tuple[int, ...]] = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    network(torch.zeros(1, 1, 64, 64))
    assert min(shape[-1] for shape in seen) == 64 // 16
    assert (16, 64, 64) in seen


def test_one_stage_is_s_of_g() -> None:
    network = build("one_stage").eval()
    both = EnhancedSegmentor(network[0], network[1]).eval()
    x = torch.rand(2, 1, 64, 32) * 2 - 1
    torch.testing.assert_close(network(x), both(x))
    assert not torch.allclose(network(x), network[1](x))


# DeepLab.


def test_grey_is_repeated() -> None:
    x = torch.randn(2, 1, 3, 4)
    out = RepeatChannels(3)(x)
    assert out.shape == (2, 3, 3, 4)
    assert all(torch.equal(out[:, i], x[:, 0]) for i in range(3))


@pytest.mark.parametrize("factory", [deeplab_v3, deeplab_v3_plus])
def test_without_the_library_the_error_says_how_to_install_it(factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(InputError, match=r"no segmentation_models_pytorch .*Run `make setup-deeplab`") as info:
        factory()
    assert "\n" not in str(info.value)


def test_a_torchvision_of_another_torch_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(InputError, match=r"importing it fails \(operator torchvision::nms does not exist\)"):
        deeplab_v3()


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_the_overlay_fails_with_that_error_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(RuntimeError) as info:
        build(name)
    assert "make setup-deeplab" in str(find_input_error(info.value))


@needs_deeplab
@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_deeplab_trains_on_two_images_but_not_on_one(name: str) -> None:
    network = build(name).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.randn(1, 1, 32, 32))
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7, 32, 32)


# What fits.


@pytest.mark.parametrize(
    ("name", "size", "fitting"),
    [
        ("unet", [40, 48], [48, 48]),
        ("unet", [16, 16], [32, 32]),  # instance normalisation of 1 x 1 at the bottom
        ("segresnet", [36, 32], [40, 32]),
        ("vnet", [40, 32], [48, 32]),
        ("swin_unetr_2d", [32, 32], [64, 64]),
        ("full_resolution", [250, 256], [256, 256]),
        ("one_stage", [48, 64], [64, 64]),
        pytest.param("deeplabv3plus", [40, 64], [48, 64], marks=needs_deeplab),
        pytest.param("deeplabv3", [36, 64], [40, 64], marks=needs_deeplab),
    ],
)
def test_a_slice_size_that_does_not_fit_is_refused_with_the_next_that_does(
    name: str, size: list[int], fitting: list[int]
) -> None:
    network = build(name)
    check_fit(network, fitting)
    with pytest.raises(InputError) as info:
        check_fit(network, size, name=name)
    given = ",".join(map(str, fitting))
    assert str(info.value) == (
        f"slice_size: found {size}, which {name} does not take; expected {fitting}. Give `--slice_size [{given}]`."
    )


@pytest.mark.parametrize("size", ["[32", [32], [32, 0], 32, [32, "a"]])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match=r"slice_size: found .* expected two whole numbers from 1"):
        check_fit(nn.Conv2d(1, 7, 1), size)


def test_a_network_that_takes_nothing_is_told_with_its_reason() -> None:
    with pytest.raises(InputError, match=r"which mine does not take \(.*3 channels"):
        check_fit(nn.Conv2d(3, 7, 1), [32, 32], name="mine")
    with pytest.raises(InputError, match=r"an output of \(16, 16\)"):
        check_fit(nn.Conv2d(1, 7, 2, stride=2), [32, 32])


def test_a_batch_that_is_too_small_is_refused() -> None:
    network = nn.Conv2d(1, 7, 1)
    check_fit(network, [8, 8], batch_size=2, min_batch=2)
    with pytest.raises(InputError, match=r"batch_size: found 1; expected at least 2: mine .* `--batch_size 2` or more"):
        check_fit(network, [8, 8], batch_size=1, min_batch=2, name="mine")


def test_a_check_leaves_the_network_and_the_random_numbers_as_they_were() -> None:
    network = build("one_stage").train()
    network[0].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    drawn = torch.get_rng_state()
    check_fit(network, [32, 32])
    with pytest.raises(InputError):
        check_fit(network, [40, 40])
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
