"""The options that MONAI Label shows in 3D Slicer: what it does with them, done here without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from grn_monai.inferers import TwoPlaneInferer
from grn_monai.transforms import OrderedLayersd
from tests.bundles.conftest import BUNDLES, ROOT, workflow

GRNS = [b for b in BUNDLES if "grn" in b]


def parser(bundle: str) -> ConfigParser:
    config = ConfigParser()
    config.read_config(str(ROOT / "bundles" / bundle / "configs" / "inference.yaml"))
    config.config["bundle_root"] = str(ROOT / "bundles" / bundle)
    return config


def ordered(config: ConfigParser) -> bool:
    found = [t for t in config.get_parsed_content("postprocessing").transforms if isinstance(t, OrderedLayersd)]
    assert len(found) == 1
    return found[0].decode.ordered


@pytest.mark.parametrize("bundle", BUNDLES)
def test_each_request_changes_the_options_and_keeps_the_network(bundle: str) -> None:
    config = parser(bundle)
    network = config.get_parsed_content("network_def")
    shown = config.get_parsed_content("displayable_configs")
    grn = bundle in GRNS
    assert shown == ({"sge": True, "ordered": True} if grn else {"ordered": True})
    volume = torch.rand(1, 1, 3, 3, 40) * 2 - 1
    results = []
    for sge, order in ((True, True), (False, True), (False, False), (True, True)):
        # As monailabel.tasks.infer.bundle.BundleInferTask.pre_transforms does it.
        config["displayable_configs"].update({k: v for k, v in (("sge", sge), ("ordered", order)) if k in shown})
        config.parse()
        inferer = config.get_parsed_content("inferer")
        assert isinstance(inferer, TwoPlaneInferer)
        assert inferer.sge is (sge if grn else None)
        assert ordered(config) is order
        inferer.size = (32, 32)
        results.append(inferer(volume, network.eval())["pred"])
    assert torch.equal(results[0], results[3])
    assert torch.equal(results[1], results[2])
    assert torch.equal(results[0], results[1]) is not grn
    if grn:
        assert network.sge is True


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize(
    ("given", "expected"), [({}, True), ({"ordered": "false"}, False), ({"ordered": False}, False)]
)
def test_order_on_the_command_line(bundle: str, given: dict, expected: bool, tmp_path: Path) -> None:
    flow = workflow(bundle, "inference", workflow_type="infer", output_dir=str(tmp_path), device="cpu", **given)
    flow.parser.parse()
    assert ordered(flow.parser) is expected


@pytest.mark.parametrize("bundle", GRNS)
@pytest.mark.parametrize(
    ("overlays", "given", "expected", "model"),
    [
        ((), {}, True, "model.pt"),
        (("no_sge",), {}, False, "model_raw.pt"),
        ((), {"sge": "false"}, False, "model_raw.pt"),
        ((), {"displayable_configs#sge": "false"}, False, "model_raw.pt"),
        ((), {"network_def#sge": "false", "ckpt_path": "some/model.pt"}, False, "model.pt"),
    ],
)
def test_sge_on_the_command_line(
    bundle: str, overlays: tuple[str, ...], given: dict, expected: bool, model: str, tmp_path: Path
) -> None:
    flow = workflow(
        bundle, "inference", *overlays, workflow_type="infer", output_dir=str(tmp_path), device="cpu", **given
    )
    assert flow.parser.get_parsed_content("inferer").sge is expected
    assert Path(flow.parser.get_parsed_content("ckpt_path")).name == model
    if "network_def#sge" not in given:  # there, the inferer alone reads the text "false"
        assert flow.parser.get_parsed_content("network_def").sge is expected
