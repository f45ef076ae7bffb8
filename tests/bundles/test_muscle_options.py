"""What MONAI Label shows of the CT and MR bundles, and the export of their networks, plain and with a generator."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export

from grn_monai.transforms import LargestPartd
from tests.bundles.conftest import MUSCLES, ROOT

CONFIGS = {name: ROOT / "bundles" / name / "configs" for name in MUSCLES}


def parser(bundle: str, *overlays: str) -> ConfigParser:
    config = ConfigParser()
    config.read_config([str(CONFIGS[bundle] / f"{name}.yaml") for name in ("inference", *overlays)])
    config.config["bundle_root"] = str(ROOT / "bundles" / bundle)
    return config


def ask(config: ConfigParser, **options: bool) -> ConfigParser:
    """As monailabel.tasks.infer.bundle.BundleInferTask.pre_transforms does it."""
    config["displayable_configs"].update(options)
    config.parse()
    return config


def test_largest_component_of_a_request() -> None:
    config = parser("mri_paraspinal_muscle")
    assert config.get_parsed_content("displayable_configs") == {"largest_component": False}
    for wanted in (True, False, True):
        transforms = ask(config, largest_component=wanted).get_parsed_content("postprocessing").transforms
        assert any(isinstance(t, LargestPartd) for t in transforms) is wanted


def test_sge_of_a_request() -> None:
    config = parser("ct_lumbar_muscle", "sge")
    assert config.get_parsed_content("displayable_configs") == {"sge": True}
    for wanted in (True, False, True):
        assert ask(config, sge=wanted).get_parsed_content("inferer").sge is wanted
    assert "displayable_configs" not in parser("ct_lumbar_muscle").get()


@pytest.mark.graphs
@pytest.mark.parametrize("overlays", [(), ("sge",)])
@pytest.mark.parametrize("bundle", MUSCLES)
def test_torchscript(bundle: str, overlays: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = parser(bundle, *overlays).get_parsed_content("network_def").eval()
    torch.save({"model": network.state_dict()}, tmp_path / "model.pt")
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        key_in_ckpt="model",
        meta_file=str(CONFIGS[bundle] / "metadata.json"),
        config_file=[str(CONFIGS[bundle] / f"{name}.yaml") for name in ("inference", *overlays)],
    )
    script = torch.jit.load(tmp_path / "model.ts")
    with torch.no_grad():
        for shape in ((1, 1, 32, 32), (3, 1, 64, 96)):
            x = torch.rand(shape) * 2 - 1
            expected = network(x)
            assert expected.std() > 1e-3
            torch.testing.assert_close(script(x), expected, rtol=0, atol=1e-4)
