"""TwoPlaneInferer: values against pointwise networks and by hand, batches, memory of geometry, refusals."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from torch import nn

from grn_monai.errors import InputError
from grn_monai.inferers import TwoPlaneInferer
from grn_monai.transforms import SlicesToVolume, VolumeToSlices

SHAPE = (5, 7, 9)


class Pointwise(nn.Module):
    """Seven logits from one grey value, each voxel for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 7, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.linspace(-2, 2, 7).reshape(7, 1, 1, 1))
            self.conv.bias.copy_(torch.tensor([0.0, 0.3, -0.2, 0.1, 0.4, -0.5, 0.2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)

    def on_voxels(self, volume: torch.Tensor) -> torch.Tensor:
        weight, bias = self.conv.weight.reshape(7, 1, 1, 1), self.conv.bias.reshape(7, 1, 1, 1)
        return (volume * weight + bias).softmax(1)


class Directional(nn.Module):
    """Looks along rows and columns, so that the planes disagree."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 7, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 5 * self.conv(x)


class Enhancer(nn.Module):
    """The least that the inferer needs of an enhancing network; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.segmentor = Pointwise()
        self.passes = 0

    def enhance(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return x / 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.segmentor(self.enhance(x))

    def enhance_and_segment(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        enhanced = self.enhance(x)
        return enhanced, self.segmentor(enhanced)


class TwoPasses(nn.Module):
    """An enhancing network that does not say how its passes are shared."""

    def __init__(self, sge: bool) -> None:
        super().__init__()
        self.segmentor, self.sge = Pointwise(), sge

    def enhance(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.segmentor(self.enhance(x) if self.sge else x)


@pytest.fixture
def volume() -> torch.Tensor:
    return torch.rand(2, 1, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("planes", [("sagittal", "transverse"), ("sagittal",), "transverse"])
@pytest.mark.parametrize("fusion", ["mean", "product"])
def test_pointwise_network_gives_the_network_on_voxels(volume: torch.Tensor, planes: object, fusion: str) -> None:
    network = Pointwise()
    out = TwoPlaneInferer(planes, size=None, fusion=fusion)(volume, network)
    torch.testing.assert_close(out, network.on_voxels(volume))
    assert out.dtype == torch.float32
    assert not out.requires_grad


@pytest.mark.parametrize("size", [None, (16, 16), (6, 4)])
def test_each_plane_equals_slices_through_the_network(volume: torch.Tensor, size: tuple | None) -> None:
    network = Directional()
    out = TwoPlaneInferer(size=size, return_planes=True)(volume, network)
    for plane in ("sagittal", "transverse"):
        for b in range(2):
            with torch.no_grad():
                maps = network(VolumeToSlices(plane, size)(volume[b]).as_tensor()).softmax(1)
            torch.testing.assert_close(out[plane][b], SlicesToVolume(plane, SHAPE)(maps))
    assert (out["sagittal"] - out["transverse"]).abs().max() > 0.1, "the planes must be told apart"
    torch.testing.assert_close(out["pred"], (out["sagittal"] + out["transverse"]) / 2)
    torch.testing.assert_close(out["pred"].sum(1), torch.ones(2, *SHAPE))


@pytest.mark.parametrize("fusion", ["mean", "product"])
def test_a_single_slice_is_segmented_in_its_own_plane_only(fusion: str) -> None:
    volume, network = torch.rand(2, 1, 6, 1, 9) * 2 - 1, Directional()
    expected = network(volume[:, :, :, 0].transpose(2, 3)).softmax(1).transpose(2, 3)
    pred = TwoPlaneInferer(size=None, fusion=fusion)(volume, network)
    torch.testing.assert_close(pred[:, :, :, 0], expected.detach())
    result = TwoPlaneInferer(size=None, return_planes=True, return_agreement=True)(volume, network)
    assert set(result) == {"pred", "sagittal", "transverse"}  # there is no second plane to agree with
    torch.testing.assert_close(result["sagittal"], result["pred"])
    with pytest.raises(InputError, match="planes"):
        TwoPlaneInferer(planes="sagittal")(volume, network)


def test_product_is_the_normalised_geometric_mean(volume: torch.Tensor) -> None:
    out = TwoPlaneInferer(size=(8, 8), fusion="product", return_planes=True)(volume, Directional())
    product = (out["sagittal"].double() * out["transverse"].double()).sqrt()
    torch.testing.assert_close(out["pred"].double(), product / product.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_batch_size_does_not_change_the_result(volume: torch.Tensor, batch_size: int) -> None:
    network = Directional()
    expected = TwoPlaneInferer(size=(16, 12), batch_size=7)(volume, network)
    torch.testing.assert_close(TwoPlaneInferer(size=(16, 12), batch_size=batch_size)(volume, network), expected)


def test_no_more_slices_than_a_batch_at_a_time(volume: torch.Tensor) -> None:
    seen = []

    def network(x: torch.Tensor, scale: float, shift: float = 0) -> torch.Tensor:
        seen.append(len(x))
        return x.repeat(1, 7, 1, 1) * scale + shift

    TwoPlaneInferer(size=None, batch_size=3)(volume, network, 2.0, shift=1.0)
    assert seen == [3, 2, 3, 3, 1] * 2


def test_enhanced_image_costs_no_second_pass(volume: torch.Tensor) -> None:
    network = Enhancer()
    out = TwoPlaneInferer(size=None, batch_size=64, return_enhanced=True)(volume, network)
    assert network.passes == 4, "two volumes, two planes"
    torch.testing.assert_close(out["enhanced"], volume / 2)
    torch.testing.assert_close(out["pred"], network.segmentor.on_voxels(volume / 2))


def test_a_network_that_shares_no_pass_gives_the_same(volume: torch.Tensor) -> None:
    network = TwoPasses(sge=True)
    out = TwoPlaneInferer(size=None, return_enhanced=True)(volume, network)
    torch.testing.assert_close(out["enhanced"], volume / 2)
    torch.testing.assert_close(out["pred"], network.segmentor.on_voxels(volume / 2))


@pytest.mark.parametrize("enhanced", [True, False])
def test_s_of_g_is_not_taken_from_a_network_that_gives_s_of_x(volume: torch.Tensor, enhanced: bool) -> None:
    options = {"size": None, "return_enhanced": enhanced}
    with pytest.raises(InputError, match=r"^sge: found TwoPasses, which predicts S\(x\).*enhance_and_segment"):
        TwoPlaneInferer(**options, sge=True)(volume, TwoPasses(sge=False))
    TwoPlaneInferer(**options)(volume, TwoPasses(sge=False))


def test_raw_prediction_beside_the_enhanced_image(volume: torch.Tensor) -> None:
    network = Enhancer()
    network.sge = False
    network.forward = network.segmentor.forward
    out = TwoPlaneInferer(size=None, return_enhanced=True)(volume, network)
    torch.testing.assert_close(out["enhanced"], volume / 2)
    torch.testing.assert_close(out["pred"], network.segmentor.on_voxels(volume))


def test_enhanced_segmentor_of_this_project(volume: torch.Tensor) -> None:
    networks = pytest.importorskip("grn_monai.networks")
    generator = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh())
    for sge in (True, False):
        network = networks.EnhancedSegmentor(generator, Directional(), sge=sge, size_divisor=8).eval()
        out = TwoPlaneInferer(size=None, return_enhanced=True)(volume, network)
        torch.testing.assert_close(out["pred"], TwoPlaneInferer(size=None)(volume, network))


def test_amp_stays_close_and_float32(volume: torch.Tensor) -> None:
    seen = []

    class Spy(Directional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    exact = TwoPlaneInferer(size=None)(volume, Spy())
    half = TwoPlaneInferer(size=None, amp=True)(volume, Spy())
    assert {seen[0], seen[-1]} == {torch.float32, torch.bfloat16}
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.03, rtol=0)


def test_meta_survives_under_inference_mode() -> None:
    affine = torch.diag(torch.tensor([0.2, 0.3, 0.4, 1.0], dtype=torch.float64))
    items = [
        {"image": MetaTensor(torch.rand(1, *SHAPE), affine=affine, meta={"filename_or_obj": f"{i}"})} for i in "ab"
    ]
    batch = next(iter(DataLoader(Dataset(items), batch_size=2)))["image"]
    with torch.inference_mode():
        out = TwoPlaneInferer(size=(16, 16))(batch, Pointwise())
    assert out.shape == (2, 7, *SHAPE)
    assert out.is_batch
    assert out.meta["filename_or_obj"] == ["a", "b"]
    assert torch.equal(out.affine, batch.affine)


def test_supervised_evaluator_takes_it() -> None:
    items = [{"image": MetaTensor(torch.rand(1, *SHAPE)), "label": MetaTensor(torch.zeros(1, *SHAPE))}]
    network = Pointwise()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=network,
        inferer=TwoPlaneInferer(size=None),
        decollate=False,
    )
    evaluator.run()
    torch.testing.assert_close(
        evaluator.state.output["pred"].as_tensor(), network.on_voxels(items[0]["image"][None]).as_tensor()
    )


def test_refusals(volume: torch.Tensor) -> None:
    for bad in ((), ("sagittal", "sagittal"), ("axial",)):
        with pytest.raises(InputError, match="plane"):
            TwoPlaneInferer(bad)
    with pytest.raises(InputError, match="'vote'; expected mean or product"):
        TwoPlaneInferer(fusion="vote")
    with pytest.raises(InputError, match="batch_size"):
        TwoPlaneInferer(batch_size=0)
    with pytest.raises(InputError, match="missing batch or channel axis"):
        TwoPlaneInferer()(volume[0], Pointwise())
    with pytest.raises(InputError, match=r"returns list.*Wrap the network"):
        TwoPlaneInferer(size=None)(volume, lambda x: [x])
    with pytest.raises(InputError, match="Pointwise; expected a network with a method enhance"):
        TwoPlaneInferer(return_enhanced=True)(volume, Pointwise())
