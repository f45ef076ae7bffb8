"""Plans: the grid that they give, and everything in one that is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grn_monai.errors import InputError
from grn_monai.study import fraction_name, load_plan, select
from grn_monai.study.plan import fraction_of
from tests.study.conftest import ROOT, Make


def test_order_is_seeds_then_fractions_then_methods(make: Make) -> None:
    assert [run.id for run in make().runs] == [
        "a/5pct/seed_0", "b/5pct/seed_0", "a/100pct/seed_0", "b/100pct/seed_0",
        "a/5pct/seed_1", "b/5pct/seed_1", "a/100pct/seed_1", "b/100pct/seed_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fraction", "name"), [(0.05, "5pct"), (1.0, "100pct"), (0.125, "12.5pct"), (0.07, "7pct"), (0.3, "30pct")]
)
def test_names_of_fractions(fraction: float, name: str) -> None:
    assert fraction_name(fraction) == name


def test_methods_take_part_of_the_grid(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain", "fractions": [1.0], "seeds": [1]}, "b": {"bundle": "grn"}})
    assert [run.id for run in plan.runs if run.method.key == "a"] == ["a/100pct/seed_1"]
    assert len(plan.runs) == 1 + 4


def test_later_options_win(make: Make) -> None:
    method = {"bundle": "plain", "options": {"width": 4, "patience": 7}, "fractions": {0.05: {}, 1.0: {"width": 2}}}
    plan = make(options={"width": 16, "epochs": 9, "amp": True}, methods={"a": method}, seeds=[0])
    low, full = (run.options for run in plan.runs)
    assert low == {"width": 4, "epochs": 3, "amp": True, "patience": 7}
    assert full == {"width": 2, "epochs": 2, "amp": True, "patience": 7}


def test_patience_is_that_of_the_epochs_unless_given(make: Make) -> None:
    assert [run.options["patience"] for run in make(seeds=[0]).runs] == [3, 3, 2, 2]
    free = make(fractions=[1.0], seeds=[0])
    assert "patience" not in free.runs[0].options
    assert free.runs[0].epochs == 4  # the bundle's own


def test_modes_and_groups_follow_the_bundle(make: Make) -> None:
    a, b = make().methods
    assert (a.modes, b.modes) == (("raw",), ("raw", "sge"))
    assert (a.group, b.group, a.printed) == ("supervised", "grn", "a")
    assert b.configs("raw") == ["train", "evaluate", "no_sge"]
    assert b.configs("sge") == ["train", "evaluate"]


def test_evaluations_keep_overlays_of_the_network_alone(make: Make) -> None:
    methods = {
        "a": {"bundle": "plain", "overlays": ["network_big", "augment"]},
        "c": {"bundle": "plain", "overlays": ["augment"], "eval_overlays": ["augment"]},
    }
    a, c = make(methods=methods).methods
    assert a.configs("raw") == ["train", "network_big", "evaluate"]
    assert c.configs("raw") == ["train", "augment", "evaluate"]


def test_paths_are_relative_to_the_file_and_output_can_be_another(make: Make, tmp_path: Path) -> None:
    plan = make()
    assert (plan.output, plan.cohort) == (tmp_path / "out", tmp_path / "cohort")
    assert plan.folder(plan.runs[0]) == tmp_path / "out" / "runs" / "a" / "5pct" / "seed_0"
    assert load_plan(tmp_path / "study.yaml", tmp_path / "other").output == tmp_path / "other"
    assert make(output=None).output == tmp_path.parent / "runs" / "try"


def test_a_cohort_to_simulate_may_be_missing(make: Make, tmp_path: Path) -> None:
    plan = make(cohort={"path": "made", "simulate": "--shape 20 16 40 --seed 3"})
    assert plan.simulate == ("--shape", "20", "16", "40", "--seed", "3")
    assert plan.cohort == tmp_path / "made"


METHOD = {"bundle": "plain"}


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"fraction": [1]}, "fraction", "Did you mean fractions?"),
        ({"cohort": None}, "cohort", "found nothing"),
        ({"cohort": "nowhere"}, "cohort", "nowhere"),
        ({"cohort": {"path": "x", "simulat": ""}}, "cohort: simulat", "Did you mean simulate?"),
        ({"cohort": {"path": "x", "simulate": "--out y"}}, "cohort: simulate", "Give the folder as `path`"),
        ({"cohort": {"path": "x", "simulate": "'"}}, "cohort: simulate", "No closing quotation"),
        ({"cohort": "bundles"}, "cohort", "without dataset.json"),
        ({"bundles": "nowhere"}, "bundles", "no folder"),
        ({"methods": {}}, "methods", "found nothing"),
        ({"methods": ["a"]}, "methods", "names with values"),
        ({"methods": {"a b": METHOD}}, "methods: a b", "the name 'a b'"),
        ({"methods": {"../a": METHOD}}, "methods: ../a", "it names a folder"),
        ({"methods": {"a": {}}}, "methods: a: bundle", "the name of a bundle"),
        ({"methods": {"a": {"bundle": "plane"}}}, "methods: a: bundle", "Did you mean plain?"),
        ({"methods": {"a": {**METHOD, "overlay": []}}}, "methods: a: overlay", "Did you mean overlays?"),
        ({"methods": {"a": {**METHOD, "overlays": ["agment"]}}}, "methods: a: overlays", "Did you mean augment?"),
        ({"methods": {"a": {**METHOD, "overlays": ["evaluate"]}}}, "methods: a: overlays", "no overlay of plain"),
        ({"methods": {"a": {**METHOD, "eval_overlays": ["x"]}}}, "methods: a: eval_overlays", "no overlay of plain"),
        ({"methods": {"a": {**METHOD, "modes": ["sge"]}}}, "methods: a: modes", "expected raw"),
        ({"methods": {"a": {**METHOD, "modes": []}}}, "methods: a: modes", "at least one mode"),
        ({"methods": {"a": {**METHOD, "options": {"widht": 1}}}}, "methods: a: options: widht", "Did you mean width?"),
        ({"methods": {"a": {**METHOD, "options": {"seed": 1}}}}, "methods: a: options: seed", "sets by itself"),
        ({"methods": {"a": {**METHOD, "options": {"big": 1}}}}, "methods: a: options: big", "does not have"),
        ({"methods": {"a": {**METHOD, "fractions": [0.2]}}}, "methods: a: fractions", "which the study does not have"),
        ({"methods": {"a": {**METHOD, "seeds": [5]}}}, "methods: a: seeds", "which the study does not have"),
        ({"methods": {"a": {**METHOD, "fractions": {1.0: {"x": 1}}}}}, "methods: a: fractions: 1.0: x", "not have"),
        ({"options": {"base_channels": 1}}, "options: base_channels", "plain (method a) does not have"),
        ({"options": {"a#b": 1}}, "options: a#b", "no id"),
        ({"fractions": [0.05, 0.05]}, "fractions", "0.05 twice"),
        ({"fractions": [0]}, "fractions", "above 0 and at most 1"),
        ({"fractions": [1.5]}, "fractions", "above 0 and at most 1"),
        ({"fractions": ["5%"]}, "fractions", "5 % is written 0.05"),
        ({"fractions": {}}, "fractions", "at least one fraction"),
        ({"fractions": {1.0: {"epoch": 3}}}, "fractions: 1.0: epoch", "Did you mean epochs?"),
        ({"seeds": []}, "seeds", "at least one seed"),
        ({"seeds": [1, 1]}, "seeds", "1 twice"),
        ({"seeds": [-1]}, "seeds", "whole numbers"),
        ({"seeds": [True]}, "seeds", "whole numbers"),
        ({"seeds": [[1]]}, "seeds", "a seed"),
        ({"sections": ["tests"]}, "sections", "Did you mean test?"),
        ({"sections": []}, "sections", "at least one section"),
        ({"name": "a/b"}, "name", "the name 'a/b'"),
        ({"fractions": [1 / 3]}, "fractions", "whose folder would be 33.3333pct"),
        ({"fractions": [0.3333333, 0.33333331]}, "fractions", "at most six digits"),
        ({"fractions": [1e-7]}, "fractions", "at most six digits"),
        ({"options": {"epochs": "abc"}}, "options: epochs", "found 'abc'; expected a whole number from 1"),
        ({"fractions": {1.0: {"epochs": 0}}}, "fractions: 1.0: epochs", "found 0; expected a whole number from 1"),
        ({"methods": {"a": {**METHOD, "options": {"patience": 1.5}}}}, "methods: a: options: patience", "found 1.5"),
        ({"options": {"val_interval": True}}, "options: val_interval", "found True"),
        ({"methods": {"a": METHOD, "b": {"bundle": "grn", "title": "a"}}}, "methods: b: title", "the title of a too"),
        ({"methods": {"a": {**METHOD, "title": "U\tNet"}}}, "methods: a: title", "control characters"),
        ({"methods": {"a": {**METHOD, "group": "x\ny"}}}, "methods: a: group", "control characters"),
        ({"methods": {"a": {**METHOD, "options": {"split": "x.json"}}}}, "cohort", "without x.json"),
        ({"title": 3}, "title", "a text"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_work_is_refused(make: Make, tmp_path: Path, changes: Any, key: str, words: str) -> None:
    with pytest.raises(InputError) as info:
        make(**changes)
    text = str(info.value)
    assert text.startswith(f"{tmp_path / 'study.yaml'}: {key}: found ")
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize("fraction", [0.05, 0.07, 0.125, 0.333333, 1.0, 0.0001])
def test_names_of_fractions_read_back(fraction: float, make: Make) -> None:
    assert fraction_of(fraction_name(fraction)) == fraction
    assert make(fractions=[fraction]).fractions == (fraction,)


def test_what_is_needed_may_be_part_of_a_package_that_is_missing(make: Make) -> None:
    needs = ["no_such_package.part", "json.no_such_part", "json.tool"]
    plan = make(methods={"a": {"bundle": "plain", "needs": needs}})
    assert plan.methods[0].missing() == ["no_such_package.part", "json.no_such_part"]


def test_an_empty_section_is_refused(make: Make, cohort: Path) -> None:
    (cohort / "dataset.json").write_text('{"training": [{}], "validation": [{}], "test": []}')
    with pytest.raises(InputError, match="no scans in section 'test'"):
        make()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key in line 1 and again in line 3"),
        ("methods:\n  u: {bundle: x, bundle: y}\n", "methods: u: bundle: found the key"),
        ("a: [1\n", "line 2: found no readable YAML"),
        ("", "the study's cohort"),
        ("- 1\n", "names with values"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError) as info:
        load_plan(tmp_path / "s.yaml")
    assert words in str(info.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [
        (["a/5pct/seed_0"], ["a/5pct/seed_0"]),
        (["b/100pct"], ["b/100pct/seed_0", "b/100pct/seed_1"]),
        (["*/5pct/seed_1"], ["a/5pct/seed_1", "b/5pct/seed_1"]),
        (["b/5pct/seed_0", "a/5pct/seed_0"], ["a/5pct/seed_0", "b/5pct/seed_0"]),  # in the plan's order
    ],
)
def test_only_some_runs(make: Make, patterns: list[str], ids: list[str]) -> None:
    assert [run.id for run in select(make(), patterns)] == ids


@pytest.mark.parametrize(("pattern", "near"), [("bb", r"mean b\?"), ("a/5pc", r"a/5pct\?"), ("zzz", "Known: a, b")])
def test_a_pattern_without_a_run_is_refused(make: Make, pattern: str, near: str) -> None:
    with pytest.raises(InputError, match=near):
        select(make(), ["a", pattern])


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_studies_of_the_repository_can_be_run(file: Path) -> None:
    plan = load_plan(file)
    assert plan.name == file.stem
    assert plan.output == ROOT / "runs" / file.stem
    assert len({run.id for run in plan.runs}) == len(plan.runs)
    assert {run.method.bundle.folder.parent for run in plan.runs} == {ROOT / "bundles"}
