from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import create_workflow, load

from grn_monai.cli import main
from grn_monai.errors import InputError
from grn_monai.zoo import pack_bundle, read_metadata
from grn_monai.zoo.pack import FILES, read_scores
from tests.bundles.conftest import BUNDLES, EXTRA, ROOT, run

GRN_PLUS = "us_layers_grn_plus"
BUNDLE = ROOT / "bundles" / GRN_PLUS


def model_of(trained: dict[str, Path], bundle: str = GRN_PLUS) -> Path:
    return trained[bundle] / "models" / "model.pt"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_zip_of_every_bundle_is_a_bundle_of_the_zoo(
    bundle: str, trained: dict, cohort: Path, tmp_path: Path
) -> None:
    made = pack_bundle(ROOT / "bundles" / bundle, tmp_path / "dist", model_of(trained, bundle))
    version = read_metadata(ROOT / "bundles" / bundle / "configs" / "metadata.json")["version"]
    assert [p.name for p in (tmp_path / "dist").iterdir()] == [f"{bundle}_v{version}.zip"]
    with zipfile.ZipFile(made["file"]) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    assert names == sorted(names) == made["entries"]
    assert {f"{bundle}/{name}" for name in (*FILES, "models/model.pt")} <= set(names)
    overlays = {f"{bundle}/configs/{p.name}" for p in (ROOT / "bundles" / bundle / "configs").glob("*.yaml")}
    assert overlays <= set(names)
    assert not [name for name in names if Path(name).name.startswith(".")]
    folder = tmp_path / bundle
    assert (folder / "models" / "model.pt").read_bytes() == model_of(trained, bundle).read_bytes()
    assert read_metadata(folder / "configs" / "metadata.json")["eval_metrics"] == {}  # these weights were not measured
    for name, kind in (("train", "train"), ("inference", "infer")):
        options = {"bundle_root": str(folder), "dataset_dir": str(cohort), "output_dir": str(tmp_path / "run")}
        options |= {"fraction": 0.5} if bundle == "us_layers_grn_ssl" and name == "train" else {}
        flow = create_workflow(config_file=str(folder / "configs" / f"{name}.yaml"), workflow_type=kind, **options)
        assert flow.check_properties() == []
        assert flow.parser.get("slice_size") == [32, 32]
        for option, value in EXTRA[bundle].items():
            if option != "fraction" and option in flow.parser:
                assert flow.parser.get(option) == value


@pytest.mark.parametrize("bundle", BUNDLES)
def test_from_json_configs_monai_builds_and_fills_the_network_by_itself(
    bundle: str, trained: dict, tmp_path: Path
) -> None:
    made = pack_bundle(ROOT / "bundles" / bundle, tmp_path, model_of(trained, bundle), as_json=True)
    with zipfile.ZipFile(made["file"]) as archive:
        archive.extractall(tmp_path)
    configs = tmp_path / bundle / "configs"
    assert not list(configs.glob("*.yaml"))
    for path in (ROOT / "bundles" / bundle / "configs").glob("*.yaml"):
        expected = yaml.safe_load(path.read_text()) | made["set"].get(path.name, {})
        assert json.loads((configs / f"{path.stem}.json").read_text()) == expected
    page = (tmp_path / bundle / "docs" / "README.md").read_text()
    named = set(re.findall(r"configs/[\w.]+", page)) - {"configs/NAME.json"}
    assert not [name for name in named if not (tmp_path / bundle / name).is_file()]
    options = {"bundle_dir": str(tmp_path), "source": "github", "workflow_type": "inference", "device": "cpu"}
    network = load(bundle, **options, key_in_ckpt="model")
    weights = torch.load(model_of(trained, bundle), weights_only=True)["model"]
    state = network.state_dict()
    assert list(state) == list(weights)
    assert all(torch.equal(state[k], v) for k, v in weights.items())


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
    assert made["eval_metrics"]  # the bundle's own weights: its own statement
    assert not [name for name in made["entries"] if "dist" in name or "run.json" in name]


def test_scores_come_from_the_evaluation_of_the_model(trained: dict, cohort: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(cohort), "output_dir": str(trained[GRN_PLUS]), "device": "cpu", "base_channels": 4}
    options |= {"slice_size": [32, 32], "surface_distances": False, "measure_enhancement": False}
    run(GRN_PLUS, "train", "evaluate", **options, eval_dir=str(tmp_path / "eval"))
    scores = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    made = pack_bundle(BUNDLE, tmp_path / "dist", model_of(trained), evaluation=tmp_path / "eval")
    with zipfile.ZipFile(made["file"]) as archive:
        packed = json.loads(archive.read(f"{GRN_PLUS}/configs/metadata.json"))["eval_metrics"]
    assert (
        packed
        == made["eval_metrics"]
        == {
            f"mean_dice_{kind}": pytest.approx(scores[kind]["mean"], abs=5e-5)
            for kind in ("slice", "volume", "decoded")
        }
    )
    with pytest.raises(InputError, match=r"the evaluation of .*model\.pt; expected that of .*model_raw\.pt"):
        read_scores(tmp_path / "eval", trained[GRN_PLUS] / "models" / "model_raw.pt")
    (tmp_path / "eval" / "metrics.json").write_text('{"slice": {}}')
    with pytest.raises(InputError, match=r"metrics.json: found no scores \(KeyError\)"):
        pack_bundle(BUNDLE, tmp_path / "dist", model_of(trained), evaluation=tmp_path / "eval")


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


@pytest.mark.parametrize("name", FILES)
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
    arguments = ["pack", str(BUNDLE), "--model", str(model_of(trained)), "--out", str(tmp_path / "dist"), "--json"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "configs/inference.yaml: slice_size set to [32, 32], as in the training" in lines
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


def test_a_packed_checkpoint_holds_tensors_and_texts_only(trained: dict, tmp_path: Path) -> None:
    made = pack_bundle(BUNDLE, tmp_path, model_of(trained))
    with zipfile.ZipFile(made["file"]) as archive, archive.open(f"{GRN_PLUS}/models/model.pt") as file:
        content = torch.load(file, weights_only=True)
    assert set(content) == {"model", "options"}
