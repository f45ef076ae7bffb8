from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import create_workflow, load

from grn_monai.cli import main
from grn_monai.errors import InputError
from grn_monai.zoo import pack_bundle, read_metadata
from grn_monai.zoo._contents import REQUIRED
from grn_monai.zoo.pack import DATA_UNKNOWN
from tests.bundles.conftest import BUNDLES, EXTRA, ROOT
from tests.zoo.conftest import BUNDLE, GRN_PLUS, model_of, spoiled


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_zip_of_every_bundle_is_a_bundle_of_the_zoo(
    bundle: str, trained: dict, cohort: Path, tmp_path: Path
) -> None:
    made = pack_bundle(ROOT / "bundles" / bundle, tmp_path / "dist", model_of(trained, bundle), as_json=False)
    version = read_metadata(ROOT / "bundles" / bundle / "configs" / "metadata.json")["version"]
    assert [p.name for p in (tmp_path / "dist").iterdir()] == [f"{bundle}_v{version}.zip"]
    with zipfile.ZipFile(made["file"]) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    assert names == sorted(names) == made["entries"]
    assert {f"{bundle}/{name}" for name in (*REQUIRED, "models/model.pt")} <= set(names)
    overlays = {f"{bundle}/configs/{p.name}" for p in (ROOT / "bundles" / bundle / "configs").glob("*.yaml")}
    assert overlays <= set(names)
    assert not [name for name in names if Path(name).name.startswith(".")]
    folder = tmp_path / bundle
    metadata = read_metadata(folder / "configs" / "metadata.json")
    assert (metadata["eval_metrics"], metadata["data_source"]) == ({}, DATA_UNKNOWN)  # these weights were not measured
    block = (folder / "docs" / "README.md").read_text().partition("<!-- performance -->")[2]
    assert block.partition("<!-- /performance -->")[0] == "\nNot measured for these weights.\n"
    for name, kind in (("train", "train"), ("inference", "infer")):
        options = {"bundle_root": str(folder), "dataset_dir": str(cohort), "output_dir": str(tmp_path / "run")}
        options |= {"fraction": 0.5} if bundle in ("us_layers_grn_ssl", "us_layers_semi") and name == "train" else {}
        flow = create_workflow(config_file=str(folder / "configs" / f"{name}.yaml"), workflow_type=kind, **options)
        assert flow.check_properties() == []
        assert flow.parser.get("slice_size") == [32, 32]
        for option, value in EXTRA[bundle].items():
            if option != "fraction" and option in flow.parser:
                assert flow.parser.get(option) == value


@pytest.mark.parametrize("bundle", BUNDLES)
def test_monai_builds_and_fills_the_network_of_a_pack_by_itself(bundle: str, trained: dict, tmp_path: Path) -> None:
    made = pack_bundle(ROOT / "bundles" / bundle, tmp_path, model_of(trained, bundle))
    with zipfile.ZipFile(made["file"]) as archive:
        archive.extractall(tmp_path)
    configs = tmp_path / bundle / "configs"
    assert not list(configs.glob("*.yaml"))
    for path in (ROOT / "bundles" / bundle / "configs").glob("*.yaml"):
        expected = yaml.safe_load(path.read_text()) | made["set"].get(path.name, {})
        assert json.loads((configs / f"{path.stem}.json").read_text()) == expected
    page = (tmp_path / bundle / "docs" / "README.md").read_text()
    assert not re.findall(r"[\w/]+\.yaml", page)
    named = set(re.findall(r"configs/[\w.]+", page)) - {"configs/NAME.json"}
    assert not [name for name in named if not (tmp_path / bundle / name).is_file()]
    assert "network_def --filepath models/model.ts" in page
    weights = torch.load(model_of(trained, bundle), weights_only=True)["model"]
    for kind in ("inference", "train"):  # the second is monai.bundle.load's default
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Cannot find the config file|No available network")
            state = load(bundle, bundle_dir=str(tmp_path), workflow_type=kind, device="cpu").state_dict()
        assert list(state) == list(weights)
        assert all(torch.equal(state[k], v) for k, v in weights.items())


@pytest.mark.parametrize("method", ["rdrop", "uamt", "sassnet"])
def test_a_pack_of_an_overlays_training_trains_as_its_own_config_says(
    method: str, trained: dict, cohort: Path, tmp_path: Path
) -> None:
    """Its train config has none of the overlay's parts: the options of the overlay stay out, the others come along."""
    bundle, record = ROOT / "bundles" / "us_layers_semi", trained["us_layers_semi"] / "run.json"
    overlays = [bundle / "configs" / f"{name}.yaml" for name in ("train", f"method_{method}")]
    given = {"slice_size": [32, 32], "fraction": 0.5, "learning_rate": 0.003, "max_weight": 0.7}
    flow = create_workflow(config_file=[str(file) for file in overlays], workflow_type="train", **given)
    (tmp_path / "run").mkdir()
    shutil.copytree(trained["us_layers_semi"] / "models", tmp_path / "run" / "models")
    content = json.loads(record.read_text()) | {"config": flow.parser.get()}
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    made = pack_bundle(bundle, tmp_path, tmp_path / "run" / "models" / "model.pt", as_json=False)
    common = {"max_weight": 0.7} if method == "uamt" else {}  # the other overlays have a weight of their own
    assert made["set"]["train.yaml"] == {"slice_size": [32, 32], "learning_rate": 0.003, **common}
    assert made["set"]["inference.yaml"] == {"slice_size": [32, 32]}
    with zipfile.ZipFile(made["file"]) as archive:
        archive.extractall(tmp_path)
    packed = tmp_path / "us_layers_semi"
    options = {"bundle_root": str(packed), "dataset_dir": str(cohort), "output_dir": str(tmp_path / "out")}
    again = create_workflow(
        config_file=str(packed / "configs" / "train.yaml"), workflow_type="train", **options, fraction=0.5, device="cpu"
    )
    again.initialize()
    trainer = again.parser.get_parsed_content("train#trainer")
    assert (trainer.method, trainer.max_weight) == ("mean_teacher", common.get("max_weight", 0.1))


def test_equal_content_gives_equal_bytes(trained: dict, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(BUNDLE, tmp_path / "elsewhere" / GRN_PLUS)  # other times, another place
    sums = []
    for source in (BUNDLE, BUNDLE, tmp_path / "elsewhere" / GRN_PLUS):
        made = pack_bundle(source, tmp_path / "dist", model_of(trained))
        sums.append(hashlib.sha256(Path(made["file"]).read_bytes()).hexdigest())
    assert len(set(sums)) == 1
    other = pack_bundle(BUNDLE, tmp_path / "dist", model_of(trained), options={"ordered": False})
    assert hashlib.sha256(Path(other["file"]).read_bytes()).hexdigest() not in sums


def test_weights_in_the_bundle_itself_and_a_bundle_given_as_a_dot(
    trained: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(BUNDLE, tmp_path / GRN_PLUS)
    shutil.copytree(trained[GRN_PLUS] / "models", tmp_path / GRN_PLUS / "models", dirs_exist_ok=True)
    shutil.copy(trained[GRN_PLUS] / "run.json", tmp_path / GRN_PLUS / "run.json")
    monkeypatch.chdir(tmp_path / GRN_PLUS)
    made = pack_bundle(Path("."), Path("dist"))
    assert Path(made["file"]).name.startswith(f"{GRN_PLUS}_v")
    assert made["weights"] == ["model.pt", "model_raw.pt"]
    assert made["set"]["inference.yaml"] == {"slice_size": [32, 32], "base_channels": 4}
    assert made["eval_metrics"] == {}  # the statement in the bundle is about other weights
    assert not [name for name in made["entries"] if "dist" in name or "run.json" in name]


def test_without_weights_only_when_asked_for(tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / GRN_PLUS, ignore=shutil.ignore_patterns("*.pt"))
    with pytest.raises(InputError, match=r"no models/model.pt; expected trained weights.*--no-weights"):
        pack_bundle(tmp_path / GRN_PLUS, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()
    made = pack_bundle(tmp_path / GRN_PLUS, tmp_path / "dist", weights=False)
    assert made["weights"] == []
    assert not [name for name in made["entries"] if name.endswith(".pt")]
    with pytest.raises(InputError, match="given and refused"):
        pack_bundle(tmp_path / GRN_PLUS, tmp_path / "dist", model=Path("model.pt"), weights=False)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / GRN_PLUS)
    (tmp_path / GRN_PLUS / name).unlink()
    with pytest.raises(InputError, match=f"found no {name}"):
        pack_bundle(tmp_path / GRN_PLUS, tmp_path / "dist", weights=False)
    assert not (tmp_path / "dist").exists()


def test_metadata_that_breaks_the_schema_is_refused_and_the_old_zip_stays(tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / GRN_PLUS)
    made = pack_bundle(tmp_path / GRN_PLUS, tmp_path / "dist", weights=False)
    before = Path(made["file"]).read_bytes()
    file = tmp_path / GRN_PLUS / "configs" / "metadata.json"
    file.write_text(file.read_text().replace('"task"', '"tsak"'))
    with pytest.raises(InputError, match="no 'task'"):
        pack_bundle(tmp_path / GRN_PLUS, tmp_path / "dist", weights=False)
    assert [p.name for p in (tmp_path / "dist").iterdir()] == [Path(made["file"]).name]
    assert Path(made["file"]).read_bytes() == before


def test_the_command(trained: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pack", str(BUNDLE), "--model", str(model_of(trained)), "--out", str(tmp_path / "dist")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "configs/inference: slice_size set to [32, 32], as in the training" in lines
    assert "weights: model.pt, model_raw.pt; eval_metrics: none" in lines
    made = next((tmp_path / "dist").iterdir())
    assert lines[-1].startswith(f"{made}: ")
    with zipfile.ZipFile(made) as archive:
        assert f"{GRN_PLUS}/configs/inference.json" in archive.namelist()
    assert main(["pack", str(tmp_path), "--no-weights"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"grn-monai: {tmp_path}: found no LICENSE")
    assert error.count("\n") == 1


def test_help_of_the_command_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom grn_monai.cli import main\n"
        "try:\n    main(['pack', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'monai', 'numpy', 'jsonschema', 'yaml'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
    assert "--no-weights" in done.stdout


def test_packed_weights_are_tensors_alone_and_nothing_is_compressed(trained: dict, tmp_path: Path) -> None:
    made = pack_bundle(BUNDLE, tmp_path, model_of(trained))
    with zipfile.ZipFile(made["file"]) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        for name in ("model.pt", "model_raw.pt"):
            with archive.open(f"{GRN_PLUS}/models/{name}") as file:
                content = torch.load(file, weights_only=True)
            trained_weights = torch.load(model_of(trained).with_name(name), weights_only=True)["model"]
            assert list(content) == list(trained_weights)
            assert all(torch.equal(content[k], v) for k, v in trained_weights.items())


def test_a_pack_is_a_bundle_that_can_be_packed(trained: dict, tmp_path: Path) -> None:
    """As its page says: `grn-monai pack .`, with its own weights or those of another training."""
    made = pack_bundle(BUNDLE, tmp_path / "first", model_of(trained), data_source="scans of a phantom")
    with zipfile.ZipFile(made["file"]) as archive:
        archive.extractall(tmp_path)
        assert json.loads(archive.read(f"{GRN_PLUS}/configs/metadata.json"))["data_source"] == "scans of a phantom"
    again = pack_bundle(tmp_path / GRN_PLUS, tmp_path / "second", data_source="scans of a phantom")
    assert (again["options_from"], again["set"]) == (None, {"train.json": {}, "inference.json": {}})
    assert Path(again["file"]).read_bytes() == Path(made["file"]).read_bytes()
    other = pack_bundle(tmp_path / GRN_PLUS, tmp_path / "second", model_of(trained), options={"ordered": False})
    assert other["set"]["inference.json"] == {"ordered": False}
    with pytest.raises(InputError, match="configs as JSON already"):
        pack_bundle(tmp_path / GRN_PLUS, tmp_path / "second", as_json=False)


def test_what_only_the_checkpoint_or_nothing_tells_is_warned_of(
    trained: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "run" / "models" / "model.pt"
    model.parent.mkdir(parents=True)
    content = torch.load(model_of(trained), weights_only=True)
    told = {"slice_size": "[32, 32]", "base_channels": "4", "depth_axis": "A", "depth_reversed": "True"}
    for options, source, words in (
        (told, str(model), "only the checkpoint tells how they were trained\n"),
        (
            {"slice_size": "[32, 32]", "base_channels": "4"},
            str(model),
            "as the bundle has them: depth_axis, depth_reversed\n",
        ),
    ):
        torch.save({**content, "options": options}, model)
        assert main(["pack", str(BUNDLE), "--model", str(model), "--out", str(tmp_path)]) == 0
        said = capsys.readouterr()
        assert f"options of the training: {source}\n" in said.out
        assert said.err.endswith(words)
        assert said.err.count("\n") == 1
    made = pack_bundle(BUNDLE, tmp_path, model)
    assert made["untold"] == ["depth_axis", "depth_reversed"]
    torch.save({**content, "options": {}}, model)
    supervised = model_of(trained, "us_layers_supervised")
    torch.save({"model": torch.load(supervised, weights_only=True)["model"]}, model)
    assert (
        main(["pack", str(ROOT / "bundles" / "us_layers_supervised"), "--model", str(model), "--out", str(tmp_path)])
        == 0
    )
    said = capsys.readouterr()
    assert "options of the training: told by nothing\n" in said.out
    assert (
        "nothing tells how they were trained; as the bundle has them: slice_size, depth_axis, depth_reversed"
        in said.err
    )


def test_weights_that_lie_in_the_bundle_do_not_get_its_scores(trained: dict, tmp_path: Path) -> None:
    bundle = spoiled(tmp_path)
    shutil.copytree(trained[GRN_PLUS] / "models", bundle / "models", dirs_exist_ok=True)
    assert read_metadata(bundle / "configs" / "metadata.json")["eval_metrics"]
    assert pack_bundle(bundle, tmp_path / "dist", options={"base_channels": 4})["eval_metrics"] == {}
    assert pack_bundle(bundle, tmp_path / "dist", weights=False)["eval_metrics"]
