"""metadata.json and the pages of every bundle, against our schema, the installed packages and the networks."""

from __future__ import annotations

import copy
import importlib
import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from monai.bundle import ConfigParser, verify_net_in_out

import grn_monai
from benchmarks import _bundles, _pages
from benchmarks.readme import RESULTS
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES, LUMBAR_MUSCLE, MRI_MUSCLES
from grn_monai.zoo import load_schema, read_metadata
from grn_monai.zoo._contents import REQUIRED
from grn_monai.zoo._labels import label_names, modality_of
from tests.bundles.conftest import ALL, BUNDLES, MUSCLES, ROOT

PINS = dict(line.strip().lower().split("==") for line in (ROOT / "constraints.txt").open() if "==" in line)
MODULES = {"pytorch-ignite": "ignite", "PyYAML": "yaml"}
"""Packages whose module has another name."""
LABELS = {"ct_lumbar_muscle": LUMBAR_MUSCLE, "mri_paraspinal_muscle": MRI_MUSCLES}
MODALITIES = {"ct_lumbar_muscle": "CT", "mri_paraspinal_muscle": "MR"}
Change = Callable[[dict[str, Any]], Any]


def folder(bundle: str) -> Path:
    return ROOT / "bundles" / bundle


def metadata(bundle: str = "us_layers_grn_plus") -> dict[str, Any]:
    return json.loads((folder(bundle) / "configs" / "metadata.json").read_text())


def test_every_bundle_of_the_repository_is_tested() -> None:
    assert {p.name for p in (ROOT / "bundles").iterdir()} == set(ALL)
    assert set(BUNDLES) <= set(_bundles.BUNDLES) <= set(ALL)


def test_the_schema_is_a_schema_and_says_that_it_is_ours() -> None:
    Draft202012Validator.check_schema(load_schema())
    assert "Written by this project" in load_schema()["$comment"]


@pytest.mark.parametrize("bundle", ALL)
def test_metadata_is_valid_and_all_files_of_a_zoo_bundle_are_there(bundle: str) -> None:
    content = read_metadata(folder(bundle) / "configs" / "metadata.json")
    assert next(iter(content["changelog"])) == content["version"]
    assert not [name for name in REQUIRED if not (folder(bundle) / name).is_file()]
    if bundle in BUNDLES:
        assert bool(content["eval_metrics"]) == bool(_bundles.BUNDLES[bundle])


def tensor(content: dict[str, Any], side: str = "outputs", name: str = "pred") -> dict[str, Any]:
    return content["network_data_format"][side][name]


FIELDS = load_schema()["required"]
BROKEN: dict[str, tuple[Change, str]] = {
    **{f"no {field}": (lambda m, field=field: m.pop(field), f"no '{field}'") for field in FIELDS},
    "version of two numbers": (lambda m: m.update(version="0.2"), "version: '0.2'"),
    "version with a leading zero": (lambda m: m.update(version="0.02.0"), "version: '0.02.0'"),
    "version not in the changelog": (lambda m: m.update(version="9.9.9"), "no entry '9.9.9'"),
    "empty changelog": (lambda m: m.update(changelog={}), "changelog: {}"),
    "empty entry of the changelog": (lambda m: m["changelog"].update({"0.2.0": " "}), "changelog#0.2.0: ' '"),
    "changelog of a version of two numbers": (lambda m: m["changelog"].update({"0.2": "x"}), "changelog: '0.2'"),
    "range of versions": (lambda m: m.update(monai_version=">=1.6"), "monai_version: '>=1.6'"),
    "version as a number": (lambda m: m.update(numpy_version=2.4), "numpy_version: 2.4"),
    "package without version": (
        lambda m: m["required_packages_version"].update(itk=""),
        "required_packages_version#itk",
    ),
    "packages as a list": (lambda m: m.update(required_packages_version=["h5py"]), "required_packages_version: ["),
    "packages by their old name": (
        lambda m: m.update(optional_packages_version={"h5py": "3.16.0"}),
        "expected required_packages_version alone",
    ),
    "empty description": (lambda m: m.update(description=""), "description: ''"),
    "score as a text": (lambda m: m["eval_metrics"].update(dice="0.9"), "eval_metrics#dice: '0.9'"),
    "score that is no number": (lambda m: m["eval_metrics"].update(dice=float("nan")), "NaN is not in JSON"),
    "no reference": (lambda m: m.update(references=[]), "references: []"),
    "misspelt extra field": (
        lambda m: m.update(suported_apps=m["supported_apps"]),
        "the unknown field 'suported_apps'; expected 'supported_apps'",
    ),
    "unknown extra field": (lambda m: m.update(zzz=1), "the unknown field 'zzz'; expected fields of the zoo's"),
    "one size for a network of slices": (
        lambda m: tensor(m).update(spatial_shape=["32*n"]),
        "pred#spatial_shape: ['32*n']; expected two or three sizes",
    ),
    "output of more sizes than the input": (
        lambda m: tensor(m).update(spatial_shape=["32*n"] * 3),
        "spatial_shape of 2 and 3 sizes",
    ),
    "references as a text": (lambda m: m.update(references="a paper"), "references: 'a paper'"),
    "schema without address": (lambda m: m.update(schema="meta_schema.json"), "schema: 'meta_schema.json'"),
    "no outputs": (lambda m: m["network_data_format"].pop("outputs"), "no 'outputs'"),
    "no input": (lambda m: m["network_data_format"].update(inputs={}), "network_data_format#inputs: {}"),
    "input without modality": (lambda m: tensor(m, "inputs", "image").pop("modality"), "no 'modality'"),
    "output without dtype": (lambda m: tensor(m).pop("dtype"), "no 'dtype'"),
    "unknown dtype": (lambda m: tensor(m).update(dtype="float"), "pred#dtype: 'float'"),
    "unknown type": (lambda m: tensor(m).update(type="picture"), "pred#type: 'picture'"),
    "no channel": (lambda m: tensor(m).update(num_channels=0), "pred#num_channels: 0"),
    "shape as a text": (lambda m: tensor(m).update(spatial_shape="32*n"), "pred#spatial_shape: '32*n'"),
    "expression with a call": (lambda m: tensor(m).update(spatial_shape=["f(n)", 32]), "pred#spatial_shape#0: 'f(n)'"),
    "size of zero": (lambda m: tensor(m).update(spatial_shape=[0, 32]), "pred#spatial_shape#0: 0"),
    "range of one value": (lambda m: tensor(m).update(value_range=[1]), "pred#value_range: [1]"),
    "range upside down": (lambda m: tensor(m).update(value_range=[1, 0]), "value_range: [1, 0]"),
    "patch as a text": (lambda m: tensor(m).update(is_patch_data="true"), "pred#is_patch_data: 'true'"),
    "channel by name": (lambda m: tensor(m)["channel_def"].update(muscle="6"), "pred#channel_def: "),
    "channel without description": (lambda m: tensor(m)["channel_def"].pop("3"), "channels 0, 1, 2, 4, 5, 6"),
    "one channel too many": (lambda m: tensor(m)["channel_def"].update({"7": "bone"}), "expected 0 to 6"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    change, words = BROKEN[name]
    content = copy.deepcopy(metadata())
    change(content)
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as info:
        read_metadata(file)
    assert words in str(info.value)
    assert "\n" not in str(info.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text("{")
    (tmp_path / "large.json").write_text('{"eval_metrics": {"dice": 1e999}}')
    for name in ("metadata.json", "missing.json", "large.json"):
        with pytest.raises(InputError, match="no readable JSON"):
            read_metadata(tmp_path / name)


@pytest.mark.parametrize("bundle", ALL)
def test_versions_are_those_installed_and_pinned(bundle: str) -> None:
    content = metadata(bundle)
    packages = dict(content["required_packages_version"])
    assert packages.pop("grn_monai") == grn_monai.__version__
    packages |= {
        "monai": content["monai_version"],
        "torch": content["pytorch_version"],
        "numpy": content["numpy_version"],
    }
    for package, named in packages.items():
        assert named == PINS[package.lower()], package
        assert version(package).partition("+")[0] == named, package
        importlib.import_module(MODULES.get(package, package))


def test_monai_loses_the_required_packages_where_there_are_optional_ones(tmp_path: Path) -> None:
    """Why our schema refuses the field that older bundles of the zoo have."""
    content = metadata()
    for extra, lost in (({}, False), ({"optional_packages_version": {"h5py": "3.16.0"}}, True)):
        (tmp_path / "metadata.json").write_text(json.dumps(content | extra))
        parser = ConfigParser()
        parser.read_meta(str(tmp_path / "metadata.json"))
        assert (parser.get("_meta_")["required_packages_version"] != content["required_packages_version"]) is lost


@pytest.mark.parametrize("bundle", ALL)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_monai_finds_the_network_as_described(bundle: str, n: int) -> None:
    configs = folder(bundle) / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.yaml")}
    verify_net_in_out("network_def", **files, device="cpu", n=n)


def test_monai_would_find_another_network(tmp_path: Path) -> None:
    content = metadata()
    tensor(content)["num_channels"] = 6
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    config = folder("us_layers_grn_plus") / "configs" / "inference.yaml"
    with pytest.raises(ValueError, match="output channel number `7` doesn't match: `6`"):
        verify_net_in_out("network_def", str(tmp_path / "metadata.json"), str(config), device="cpu")


@pytest.mark.parametrize("bundle", ALL)
def test_channels_are_the_labels_and_logits_are_unbounded(bundle: str) -> None:
    pred = tensor(metadata(bundle))
    labels = LABELS.get(bundle, LAYER_NAMES)
    if pred["num_channels"] == 1:  # one sigmoid output: no channel for the background
        assert pred["channel_def"] == {"0": labels[1]}
    else:
        assert pred["channel_def"] == {str(i): name for i, name in labels.items()}
    assert label_names(folder(bundle)) == labels
    assert modality_of(folder(bundle)) == MODALITIES.get(bundle, "US")
    parser = ConfigParser()
    parser.read_config(str(folder(bundle) / "configs" / "inference.yaml"))
    torch.manual_seed(0)
    out = parser.get_parsed_content("network_def").eval()(torch.rand(1, 1, 32, 32) * 2 - 1)
    assert out.min() < 0  # so that [0, 1], which the zoo's bundles often say, would be wrong
    assert pred["value_range"] == []


@pytest.mark.parametrize("bundle", BUNDLES)
def test_scores_and_tables_are_those_of_the_committed_results(bundle: str) -> None:
    methods = json.loads((RESULTS / "methods.json").read_text())
    scores = metadata(bundle)["eval_metrics"]
    assert scores == _bundles.eval_metrics(bundle, methods)
    if method := _bundles.BUNDLES[bundle]:
        decoded = methods["summary"][f"{method}/raw"]["decoded"]["values"]
        assert scores["simulated_test_mean_dice_decoded"] == pytest.approx(sum(decoded) / len(decoded), abs=5e-5)
    page = (folder(bundle) / "docs" / "README.md").read_text()
    for name, content in _bundles.tables(bundle, RESULTS).items():
        assert _pages.block(name, content) in page


def test_counted_parameters_are_the_known_ones() -> None:
    """U-Net as GRN+'s Table 4 prints it, the released generator and discriminator as reference/methods.md has them."""
    table = _bundles.parameters_table("us_layers_grn_sel")
    assert table.splitlines()[2:] == [
        "| generator G | 1,306,993 | 3,626,321 | 37,089,025 |",
        "| segmentor S | 661,727 | 661,727 | 661,727 |",
        "| discriminator D (training only) | 2,764,481 | 2,764,481 | 2,764,481 |",
    ]


@pytest.mark.parametrize("bundle", ALL)
def test_pages_have_the_zoos_sections_and_name_only_what_is_there(bundle: str) -> None:
    page = (folder(bundle) / "docs" / "README.md").read_text()
    sections = ("Model Description", "Data", "Performance", "System Configuration", "Limitations", "Citation Info")
    assert re.findall(r"^## \*\*(.*)\*\*$", page, re.M) == [
        *sections[:3], "Commands", *sections[3:], "References", "License"
    ]  # fmt: skip
    for path in set(re.findall(r"configs/[\w.]+", page)) - {"configs/NAME.yaml"}:
        assert (folder(bundle) / path).is_file(), path
    for overlay in (folder(bundle) / "configs").glob("*.yaml"):
        assert overlay.stem in page, f"{overlay.name} is not explained"
    options = page.partition("#### **Options**")[2].partition("####")[0]
    files = [folder(bundle) / "configs" / f"{name}.yaml" for name in ("train", "inference", "evaluate")]
    ids = {key for file in files for key in yaml.safe_load(file.read_text())}
    named = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)+", "", options, flags=re.S))
    assert len(named) > 15
    assert set(named) <= ids, set(named) - ids
    cited, known = (set(re.findall(r"\d{4}\.\d{5}", text)) for text in (page, str(metadata(bundle)["references"])))
    assert cited
    assert cited <= known
    for tool in (
        "ckpt_export",
        "torchrun",
        "grn-monai pack",
        "MONAI Label",
        "grn_plus.yaml" if bundle in MUSCLES else "no_sge" if "grn" in bundle else "augment",
    ):
        assert tool in page


@pytest.mark.parametrize("bundle", ALL)
def test_the_licence_is_the_projects(bundle: str) -> None:
    assert (folder(bundle) / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "ships no data" in (folder(bundle) / "docs" / "data_license.txt").read_text()
