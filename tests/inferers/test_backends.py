"""Backends of TwoPlaneInferer: equal to torch on a real scan, follow the weights, keep nothing, refuse clearly."""

from __future__ import annotations

import gc
import importlib.util
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet
from torch import nn

from grn_monai.data import read_volume
from grn_monai.errors import InputError
from grn_monai.inferers import TwoPlaneInferer, backends, check_backend
from grn_monai.networks import EnhancedSegmentor, ResNetGenerator
from grn_monai.transforms import DepthLast, ScaleEcho

pytestmark = pytest.mark.graphs

ROOT = Path(__file__).parents[2]
PHANTOM = ROOT / "tests" / "data" / "plus" / "SpinePhantomFreehandReconstructed.mha"
GRAPHS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f'{name} needs: pip install "grn-monai[export]"'
        ),
    )
    for name in ("onnxruntime", "openvino")
]
COMPILED = pytest.param("compiled", marks=pytest.mark.slow)


def unet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = UNet(2, 1, 7, (4, 8, 8), (2, 2)).eval()
    with torch.no_grad():
        for weight in network.parameters():  # as sure of itself as a trained one: small differences show
            weight.mul_(2)
    return network


def enhancing(sge: bool = True) -> EnhancedSegmentor:
    torch.manual_seed(1)
    generator = ResNetGenerator(base_channels=4)
    with torch.no_grad():
        for _ in range(20):
            generator(torch.randn(4, 1, 32, 32))  # statistics of BatchNorm that are not those of the start
    return EnhancedSegmentor(generator, unet(), sge=sge).eval()


@pytest.fixture(scope="module")
def scan() -> torch.Tensor:
    """A part of a real 3D ultrasound, (1, 1, X, Y, Z)."""
    whole = ScaleEcho()(DepthLast()(read_volume(PHANTOM))).as_tensor()
    corner = [(size - want) // 2 for size, want in zip(whole.shape[1:], (11, 9, 40), strict=True)]
    part = whole[:, corner[0] :, corner[1] :, corner[2] :][:, :11, :9, :40]
    assert part.std() > 0.1
    return part[None].contiguous()


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key.endswith("counts"):
            assert (found[key] - value).abs().sum() <= 0.002 * value.sum()
        else:
            assert found[key].dtype == torch.float32
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", [*GRAPHS, COMPILED])
@pytest.mark.parametrize("size", [(32, 64), (50, 37)])
def test_equal_to_torch_on_a_real_scan(scan: torch.Tensor, backend: str, size: tuple[int, int]) -> None:
    network = enhancing()
    for sge in (True, False):
        for more in ({}, {"return_enhanced": True, "return_agreement": True, "return_planes": True}):
            options: dict[str, Any] = {"size": size, "batch_size": 4, "sge": sge, "return_planes": True, **more}
            with torch.inference_mode():  # as an evaluator calls it; batches of 4, 3 and 1
                expected = TwoPlaneInferer(**options)(scan, network)
                found = TwoPlaneInferer(**options, backend=backend)(scan, network)
            same(found, expected)
            assert expected["pred"].std() > 0.02
    assert network.sge


@pytest.mark.parametrize("backend", [*GRAPHS, COMPILED])
def test_any_network_and_metatensors(scan: torch.Tensor, backend: str) -> None:
    network = unet()
    image = MetaTensor(scan, affine=torch.diag(torch.tensor([0.2, 0.3, 0.4, 1.0], dtype=torch.float64)))
    expected = TwoPlaneInferer(size=(32, 32), return_planes=True)(image, network)
    found = TwoPlaneInferer(size=(32, 32), return_planes=True, backend=backend)(image, network)
    same(found, expected)
    assert torch.equal(found["pred"].affine, image.affine)
    with pytest.raises(InputError, match=r"^sge: found"):
        TwoPlaneInferer(size=(32, 32), sge=True, backend=backend)(image, network)


@pytest.mark.parametrize("backend", GRAPHS)
def test_new_weights_answer(scan: torch.Tensor, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(backends, "onnx_graph", lambda m, x, f=backends.onnx_graph: made.append(1) or f(m, x))
    network, inferer = unet(), TwoPlaneInferer(size=(32, 32), return_planes=True, backend=backend)
    plain = TwoPlaneInferer(size=(32, 32), return_planes=True)

    def load() -> None:
        network.load_state_dict(unet(5).state_dict())

    def assign() -> None:
        network.load_state_dict(unet(6).state_dict(), assign=True)

    def behind_autograd() -> None:
        for weight in network.parameters():
            weight.data *= 0.7

    before = inferer(scan, network)["pred"]
    for change in (load, assign, behind_autograd):
        count = len(made)
        same(inferer(scan, network), plain(scan, network))
        assert len(made) == max(count, 1), "the same weights are not prepared again"
        change()
        same(inferer(scan, network), plain(scan, network))
        assert len(made) == max(count, 1) + 1
        after = inferer(scan, network)["pred"]
        assert (after - before).abs().max() > 0.01
        before = after


@pytest.mark.parametrize("backend", GRAPHS)
def test_only_what_is_used_is_made_and_nothing_outlives_the_network(
    scan: torch.Tensor, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(backends, "onnx_graph", lambda m, x, f=backends.onnx_graph: made.append(type(m)) or f(m, x))
    gc.collect()
    network, count = enhancing(), len(backends._CACHE)
    for sge, parts in ((False, [UNet]), (True, [UNet, ResNetGenerator])):
        TwoPlaneInferer(size=(32, 32), sge=sge, backend=backend)(scan, network)
        assert made == parts
    assert len(backends._CACHE) == count + 1
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None
    assert len(backends._CACHE) == count


@pytest.mark.parametrize("backend", GRAPHS)
def test_graphs_of_other_weights_are_dropped(scan: torch.Tensor, backend: str) -> None:
    network, inferer = unet(), TwoPlaneInferer(size=(32, 32), backend=backend)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            inferer(scan, network)
    finally:
        torch.set_num_threads(threads)
    assert len(backends._CACHE[network][1]) == 2
    gone = [weakref.ref(parts[0]) for parts in backends._CACHE[network][1].values()]
    network.load_state_dict(unet(5).state_dict())
    inferer(scan, network)
    gc.collect()
    assert len(backends._CACHE[network][1]) == 1
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize("backend", GRAPHS)
def test_a_network_with_methods_of_its_own_is_not_rebuilt(scan: torch.Tensor, backend: str) -> None:
    class Louder(EnhancedSegmentor):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * super().forward(x)

    class Enhancing(nn.Sequential):
        def enhance(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    whole = enhancing()
    for network in (Louder(whole.generator, whole.segmentor).eval(), Enhancing(unet())):
        with pytest.raises(InputError, match=rf"^backend: found {backend} for a {type(network).__name__} with methods"):
            TwoPlaneInferer(size=(32, 32), backend=backend)(scan, network)
    plain, louder = (TwoPlaneInferer(size=(32, 32))(scan, n) for n in (whole, Louder(*whole.children()).eval()))
    assert (plain - louder).abs().max() > 0.01, "torch asks the network itself"


def test_the_compiler_sees_full_batches_only(scan: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first plane has fewer slices than a batch."""
    seen = []

    def pretend(module: nn.Module) -> Any:
        return lambda x: seen.append(tuple(x.shape)) or module(x)

    monkeypatch.setattr(torch, "compile", pretend)
    monkeypatch.setattr(backends.shutil, "which", lambda name: name)
    network, few = unet(), scan[:, :, :3]
    for batch_size in (4, 16):
        options: dict[str, Any] = {"size": (32, 64), "batch_size": batch_size, "return_planes": True}
        same(TwoPlaneInferer(**options, backend="compiled")(few, network), TwoPlaneInferer(**options)(few, network))
        assert set(seen) == {(batch_size, 1, 32, 64)}
        seen.clear()


@pytest.mark.parametrize("backend", GRAPHS)
def test_threads_share_what_is_made_once(scan: torch.Tensor, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(backends, "onnx_graph", lambda m, x, f=backends.onnx_graph: made.append(1) or f(m, x))
    network = enhancing()
    scans = [scan, scan.flip(-1), scan * 0.5, scan.flip(2)]
    expected = [TwoPlaneInferer(size=(32, 32))(s, network) for s in scans]
    wrong: list[Any] = []

    def ask(i: int) -> None:
        inferer = TwoPlaneInferer(size=(32, 32), backend=backend)
        for _ in range(5):
            try:
                torch.testing.assert_close(inferer(scans[i], network), expected[i], rtol=0, atol=1e-4)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(made) == 2  # G and S
    assert (expected[0] - expected[1]).abs().max() > 0.01


@pytest.mark.parametrize("backend", GRAPHS)
def test_one_slice_made_it_and_many_go_through_it(scan: torch.Tensor, backend: str) -> None:
    network = unet()
    for batch_size, size in ((1, (16, 16)), (64, (32, 48))):
        options = {"size": size, "batch_size": batch_size, "return_planes": True}
        same(TwoPlaneInferer(**options, backend=backend)(scan, network), TwoPlaneInferer(**options)(scan, network))


def test_bfloat16_of_openvino_only_when_asked_for(scan: torch.Tensor) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip('needs: pip install "grn-monai[export]"')
    network = unet()
    options: dict[str, Any] = {"size": (32, 32), "backend": "openvino"}
    exact, half = (TwoPlaneInferer(**options, amp=amp)(scan, network) for amp in (False, True))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.sum(1), torch.ones_like(half.sum(1)))
    assert (half.argmax(1) != exact.argmax(1)).float().mean() < 0.05
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and "avx512_bf16" in flags.read_text():
        assert (half - exact).abs().max() > 1e-4, "the processor has bfloat16"


def test_the_prepared_network_is_in_eval_mode_and_leaves_the_other_alone(scan: torch.Tensor) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip('needs: pip install "grn-monai[export]"')
    network = enhancing()
    expected = TwoPlaneInferer(size=(32, 32))(scan, network)
    network.train()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    found = TwoPlaneInferer(size=(32, 32), backend="openvino")(scan, network)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert network.training
    assert network.generator.training
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named_with_its_mend(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf'^backend: found no package {backend}; .*"grn-monai\[export\]"'):
        TwoPlaneInferer(backend=backend)
    TwoPlaneInferer(backend="torch")


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "none")
    with pytest.raises(InputError, match=r"no C\+\+ compiler.*Install g\+\+"):
        TwoPlaneInferer(backend="compiled")
    check_backend("compiled", "cuda")  # which has its own


@pytest.mark.parametrize("backend", GRAPHS)
def test_refusals(scan: torch.Tensor, backend: str) -> None:
    with pytest.raises(InputError, match="device cuda; expected the device cpu"):
        check_backend(backend, torch.device("cuda:1"))
    for network, kind in ((torch.jit.script(unet()), "ScriptModule"), (lambda x: x, "function")):
        with pytest.raises(InputError, match=f"{backend} for a .*{kind}.*Load a checkpoint"):
            TwoPlaneInferer(size=(32, 32), backend=backend)(scan, network)
    with pytest.raises(InputError, match="'tpu'; expected 'torch'"):
        TwoPlaneInferer(backend="tpu")


def test_onnxruntime_has_no_bfloat16() -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip('needs: pip install "grn-monai[export]"')
    with pytest.raises(InputError, match=r"^amp: found bfloat16 with the backend onnxruntime"):
        TwoPlaneInferer(backend="onnxruntime", amp=True)
