from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import create_workflow

from grn_monai.errors import InputError
from grn_monai.zoo import pack_bundle, prepare_bundle
from grn_monai.zoo._configs import set_values
from tests.bundles.conftest import ROOT

GRN_PLUS = "us_layers_grn_plus"
BUNDLE = ROOT / "bundles" / GRN_PLUS
SMALL_TRAINED = {"slice_size": [32, 32], "base_channels": 4, "batch_size": 8}
"""What differs from the defaults in the training of the fixture and is no matter of place or time."""


def config(folder: Path, name: str) -> dict[str, Any]:
    return yaml.safe_load((folder / "configs" / name).read_text())


@pytest.fixture
def run(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the training of GRN+ that a test may spoil."""
    shutil.copytree(trained[GRN_PLUS], tmp_path / "run")
    return tmp_path / "run"


def test_a_copy_has_weights_and_the_options_of_their_training(run: Path, tmp_path: Path) -> None:
    made = prepare_bundle(BUNDLE, tmp_path / "out" / GRN_PLUS, run / "models" / "model.pt")
    target = tmp_path / "out" / GRN_PLUS
    assert made["bundle"] == GRN_PLUS
    assert made["weights"] == ["model.pt", "model_raw.pt"]
    assert made["options_from"] == str(run / "run.json")
    assert made["set"] == {
        "train.yaml": SMALL_TRAINED,
        "inference.yaml": {k: v for k, v in SMALL_TRAINED.items() if k != "batch_size"},
    }
    for name in ("train.yaml", "inference.yaml"):
        assert config(target, name) == config(BUNDLE, name) | made["set"][name]
    for name in made["weights"]:
        assert (target / "models" / name).read_bytes() == (run / "models" / name).read_bytes()
    unchanged = {p.relative_to(BUNDLE) for p in BUNDLE.rglob("*") if p.is_file() and p.parent.name != "models"}
    assert {p.relative_to(target) for p in target.rglob("*") if p.is_file() and p.parent.name != "models"} == unchanged
    for path in unchanged - {Path("configs/train.yaml"), Path("configs/inference.yaml")}:
        assert (target / path).read_bytes() == (BUNDLE / path).read_bytes()
    assert [p.name for p in (tmp_path / "out").iterdir()] == [GRN_PLUS]


def test_comments_and_all_other_lines_stay(run: Path, tmp_path: Path) -> None:
    prepare_bundle(BUNDLE, tmp_path / "out", run / "models" / "model.pt", {"depth_axis": "A"})
    before = (BUNDLE / "configs" / "train.yaml").read_text().splitlines()
    after = (tmp_path / "out" / "configs" / "train.yaml").read_text().splitlines()
    changed = {old: new for old, new in zip(before, after, strict=True) if old != new}
    assert [new.split(":")[0] for new in changed.values()] == [
        "batch_size",
        "slice_size",
        "depth_axis",
        "base_channels",
    ]
    for old, new in changed.items():
        assert old.partition(" #")[2] == new.partition(" #")[2]
        assert old.find("#") == new.find("#")  # in its column


def test_the_copy_serves_without_any_option(trained: dict, cohort: Path, tmp_path: Path) -> None:
    """ModelLoader refuses weights of another slice size: the copy has to know its own."""
    prepare_bundle(BUNDLE, tmp_path / "copy", trained[GRN_PLUS] / "models" / "model.pt")
    file = str(tmp_path / "copy" / "configs" / "inference.yaml")
    options = {"bundle_root": str(tmp_path / "copy"), "dataset_dir": str(cohort), "output_dir": str(tmp_path / "eval")}
    flow = create_workflow(config_file=file, workflow_type="infer", device="cpu", **options)
    flow.run()
    assert len(list((tmp_path / "eval").glob("*_seg.nii.gz"))) == 2
    weights = torch.load(trained[GRN_PLUS] / "models" / "model.pt", weights_only=True)["model"]
    state = flow.parser.get_parsed_content("network").state_dict()
    assert all(torch.equal(state[k].cpu(), v) for k, v in weights.items())


def test_options_come_before_the_runs(run: Path, tmp_path: Path) -> None:
    options = {"batch_size": 2, "infer_batch_size": 3, "ordered": False, "learning_rate": 1e-5}
    made = prepare_bundle(BUNDLE, tmp_path / "out", run / "models" / "model.pt", options)
    assert made["set"]["train.yaml"] == {**SMALL_TRAINED, "batch_size": 2, "learning_rate": 1e-5}
    assert config(tmp_path / "out", "train.yaml")["learning_rate"] == 1e-5
    inference = config(tmp_path / "out", "inference.yaml")
    assert (inference["infer_batch_size"], inference["ordered"], inference["quality"]) == (3, False, True)


def test_a_switch_that_came_as_a_text_is_a_switch_again(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["config"]["depth_reversed"] = "true"  # as monai.bundle hands `--depth_reversed true` over
    (run / "run.json").write_text(json.dumps(record))
    prepare_bundle(BUNDLE, tmp_path / "out", run / "models" / "model.pt")
    assert config(tmp_path / "out", "inference.yaml")["depth_reversed"] is True


def test_without_a_record_the_checkpoint_tells(run: Path, tmp_path: Path) -> None:
    (run / "run.json").unlink()
    made = prepare_bundle(BUNDLE, tmp_path / "out", run / "models" / "model.pt")
    assert (made["options_from"], made["untold"]) == (str(run / "models" / "model.pt"), [])
    assert made["set"]["inference.yaml"] == {"slice_size": [32, 32], "base_channels": 4}
    assert "batch_size" not in made["set"]["train.yaml"]


def test_orientation_is_not_lost_without_a_record(run: Path, tmp_path: Path) -> None:
    (run / "run.json").unlink()
    content = torch.load(run / "models" / "model.pt", weights_only=True)
    assert set(content["options"]) == {"slice_size", "depth_axis", "depth_reversed", "base_channels"}
    content["options"] |= {"depth_axis": "A", "depth_reversed": "True"}
    torch.save(content, run / "models" / "model.pt")
    prepare_bundle(BUNDLE, tmp_path / "out", run / "models" / "model.pt")
    for name in ("train.yaml", "inference.yaml"):
        assert config(tmp_path / "out", name)["depth_axis"] == "A"
        assert config(tmp_path / "out", name)["depth_reversed"] is True


def test_setting_values_of_a_json_file(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"a": 1e-05, "b": {"c": 1}, "d": "@a"}')
    set_values(file, {"a": [1], "d": False})
    assert json.loads(file.read_text()) == {"a": [1], "b": {"c": 1}, "d": False}
    for bad in ({"b": 1}, {"x": 1}):
        with pytest.raises(InputError):
            set_values(file, bad)
    assert json.loads(file.read_text()) == {"a": [1], "b": {"c": 1}, "d": False}


def test_a_config_in_two_kinds_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / "b")
    (tmp_path / "b" / "configs" / "train.json").write_text("{}")
    with pytest.raises(InputError, match=r"configs/train as \.yaml and as \.json"):
        prepare_bundle(tmp_path / "b", tmp_path / "out")


def test_without_a_model_there_are_no_weights(tmp_path: Path) -> None:
    made = prepare_bundle(BUNDLE, tmp_path / "out")
    assert (made["weights"], made["options_from"], made["set"]) == ([], None, {"train.yaml": {}, "inference.yaml": {}})
    assert (tmp_path / "out" / "models").is_dir()
    assert not list((tmp_path / "out" / "models").iterdir())


def spoil_slice_size(run: Path) -> None:
    content = torch.load(run / "models" / "model.pt", weights_only=True)
    torch.save({**content, "options": {"slice_size": "[64, 64]"}}, run / "models" / "model.pt")


def spoil_definition(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["config"]["segmentor_def"]["strides"] = [1, 2, 2, 2]  # weights of the same shapes
    (run / "run.json").write_text(json.dumps(record))


def spoil_weights(run: Path) -> None:
    content = torch.load(run / "models" / "model.pt", weights_only=True)
    content["model"].pop(next(iter(content["model"])))
    torch.save(content, run / "models" / "model.pt")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "models" / "model.pt").unlink(), "model.pt: found no file"),
        (lambda run: (run / "models" / "model.pt").write_bytes(b"PK no checkpoint"), "cannot be read as a checkpoint"),
        (lambda run: torch.save({"state": {}}, run / "models" / "model.pt"), "entries ['state']"),
        (spoil_weights, "weights of another network"),
        (lambda run: torch.save({}, run / "models" / "model_raw.pt"), "model_raw.pt: found entries []"),
        (spoil_slice_size, "trained with slice_size [64, 64]"),
        (spoil_definition, "found segmentor_def"),
        (lambda run: (run / "run.json").write_text("{"), "run.json: found no record of a training"),
    ],
)
def test_bad_weights_are_one_error_and_leave_nothing(spoil: Any, words: str, run: Path, tmp_path: Path) -> None:
    spoil(run)
    with pytest.raises(InputError) as info:
        prepare_bundle(BUNDLE, tmp_path / "out" / "copy", run / "models" / "model.pt")
    assert words in str(info.value)
    assert "\n" not in str(info.value)
    assert not [*(tmp_path / "out").glob("*"), *(tmp_path / "out").glob(".*")]


def test_the_other_checkpoint_is_not_taken_for_the_model(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the name model_raw\.pt; expected RUN/models/model\.pt"):
        prepare_bundle(BUNDLE, tmp_path / "out", run / "models" / "model_raw.pt")


def test_a_place_that_cannot_be_written_to_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="that writing fails"):
        prepare_bundle(BUNDLE, tmp_path / "file" / "out")
    with pytest.raises(InputError, match="that writing fails"):
        pack_bundle(BUNDLE, tmp_path / "file" / "dist", weights=False)


def test_weights_of_another_bundle_are_refused_with_and_without_a_record(run: Path, tmp_path: Path) -> None:
    other = ROOT / "bundles" / "us_layers_supervised"
    with pytest.raises(InputError, match=r"a training of the bundle 'Low-back.*GRN\+ with SGE'"):
        prepare_bundle(other, tmp_path / "out", run / "models" / "model.pt")
    (run / "run.json").unlink()
    with pytest.raises(InputError, match="weights of another network"):
        prepare_bundle(other, tmp_path / "out", run / "models" / "model.pt")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"slicesize": 3}, "no id 'slicesize'"), ({"network_def": 3}, "'network_def' with a value over several lines")],
)
def test_options_that_cannot_be_set_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        prepare_bundle(BUNDLE, tmp_path / "out", options=options)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("out", "dangling"):
        with pytest.raises(InputError, match="something there already"):
            prepare_bundle(BUNDLE, tmp_path / name)
    with pytest.raises(InputError, match=r"no configs/train\.yaml"):
        prepare_bundle(tmp_path / "out", tmp_path / "new")


def test_setting_values_of_a_yaml_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    text = "# head\na: 1   # one: a #\nb: 'x # no comment'\nc:\n  a: 5\nd: {a: 1, b: [2]} # flow\ne: $@a + 'é' # é\n"
    file.write_text(text)
    set_values(file, {"a": 1e-5, "b": "@c#a", "d": [1, "A"], "e": None})
    assert file.read_text() == (
        "# head\na: 1.0e-05 # one: a #\nb: '@c#a'\nc:\n  a: 5\nd: [1, A]         # flow\ne: null      # é\n"
    )
    before = file.read_text()
    for bad in ({"a": 2, "f": 1}, {"c": 1}):
        with pytest.raises(InputError):
            set_values(file, bad)
    assert file.read_text() == before
