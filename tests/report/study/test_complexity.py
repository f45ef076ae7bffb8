"""What methods cost: cases from a study's file, steps as the bundles build them, memory, the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import complexity as benchmark
from grn_monai.data import datalist
from grn_monai.errors import InputError
from grn_monai.networks import count_flops, count_parameters
from grn_monai.report.study import complexity_measure
from grn_monai.report.study.complexity import (
    COMPLEXITY_FILE,
    complexity_notes,
    complexity_rows,
    complexity_table,
    load_complexity,
)
from grn_monai.report.study.complexity_cases import Case, inference_network, read_cases, training_step, write_cohort
from grn_monai.report.study.complexity_measure import (
    interleaved_seconds,
    measure,
    step_memory,
    tensor_bytes,
    used_parameters,
)
from grn_monai.report.study.formats import csv_table

BUNDLES = Path(__file__).parents[3] / "bundles"
SMALL = {"base_channels": 4, "discriminator_channels": 4, "amp": False}
UNET = Case("unet", "U-Net", "us_layers_supervised")
GRN_SSL = Case("grn_ssl", "GRN-SSL", "us_layers_grn_ssl", options=SMALL, modes=("raw", "sge"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("made_up"))


def test_a_study_file_gives_its_methods(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    file = tmp_path / "studies" / "tiny.yaml"
    file.write_text(
        "options: {device: cpu, base_channels: 12}\n"
        "methods:\n"
        "  unet: {title: U-Net, bundle: us_layers_supervised}\n"
        "  vnet: {bundle: us_layers_supervised, overlays: [network_vnet], group: network, printed: vnet}\n"
        "  grn: {title: GRN+, bundle: us_layers_grn_plus, options: {base_channels: 20}}\n"
        "  only: {bundle: us_layers_grn_plus, modes: [sge]}\n"
    )
    cases, bundles = read_cases(file)
    assert bundles.resolve() == tmp_path / "bundles"
    assert [c.key for c in cases] == ["unet", "vnet", "grn", "only"]
    assert cases[1].overlays == ("network_vnet",)
    assert (cases[1].title, cases[1].group, cases[1].printed) == ("vnet", "network", "vnet")
    assert [c.modes for c in cases] == [("raw",), ("raw",), ("raw", "sge"), ("sge",)]
    assert [c.options["base_channels"] for c in cases] == [12, 12, 20, 12]


def test_the_plan_of_a_running_study_serves_as_well(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"methods": {"a": {"bundle": "us_layers_supervised"}}}))
    for place in (tmp_path, tmp_path / "study.json"):
        cases, bundles = read_cases(place)
        assert cases == [Case("a", "a", "us_layers_supervised")]
        assert bundles == Path("bundles")


@pytest.mark.parametrize("text", ["methods: [a]", "methods: {a: {title: A}}", "{", "name: x"])
def test_what_is_no_study_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml: found no "):
        read_cases(tmp_path / "study.yaml")
    with pytest.raises(InputError, match="no readable study"):
        read_cases(tmp_path / "other.yaml")


def test_half_of_the_made_up_images_have_labels(cohort: Path) -> None:
    labelled, unlabelled = (datalist(cohort, s, "dataset.json", 0.5) for s in ("training", "unlabeled"))
    assert (len(labelled), len(unlabelled)) == (1, 1)


def test_a_step_is_that_of_the_bundle_and_trains(cohort: Path) -> None:
    step = training_step(UNET, BUNDLES, cohort, 32, 4, "cpu")
    assert (step.images, step.precision) == ((4, 0), "float32")
    (network,) = step.networks
    assert count_parameters(network) == 661_727
    before = [p.clone() for p in network.parameters()]
    step.run()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_joint_step_holds_every_network_and_optimizer(cohort: Path) -> None:
    step = training_step(GRN_SSL, BUNDLES, cohort, 32, 4, "cpu")
    names = sorted(type(network).__name__ for network in step.networks)
    assert names == ["PatchDiscriminator", "ResNetGenerator", "UNet"]
    assert len(step.optimizers) == 3
    assert step.images == (4, 4)
    held = sum(p.numel() * 4 for n in step.networks for p in n.parameters())
    step.run()
    memory = step_memory(step, "cpu")
    assert memory is not None
    # Parameters, both moments of Adam, and little else: buffers of norms and the optimizers' counters.
    assert 3 * held <= memory["held"] < 3.1 * held
    assert memory["peak"] == memory["held"] + memory["step"]
    assert memory["step"] > held  # the gradients at least
    assert step_memory(step, "meta") is None


def test_prediction_without_the_generator_uses_the_segmentor_alone() -> None:
    image = torch.rand(1, 1, 32, 32)
    raw, sge = (inference_network(GRN_SSL, mode, BUNDLES, "cpu") for mode in ("raw", "sge"))
    assert not raw.training
    assert used_parameters(raw, image) == 661_727
    assert used_parameters(sge, image) == count_parameters(sge) > 661_727
    assert count_flops(sge, (1, 1, 32, 32)) > count_flops(raw, (1, 1, 32, 32))
    assert all(p.grad is None for p in sge.parameters())


def test_a_head_that_the_prediction_does_not_need_is_not_counted() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.extra = nn.Conv2d(1, 7, 1), nn.Conv2d(1, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.main(x))

    assert used_parameters(TwoHeads(), torch.rand(1, 1, 4, 4)) == 14


def test_peak_memory_on_the_cpu_is_that_of_what_is_held_at_once() -> None:
    mega = 2**20

    def run() -> None:
        first = torch.empty(4 * mega, dtype=torch.uint8)
        second = torch.empty(8 * mega, dtype=torch.uint8)
        del first
        torch.empty(2 * mega, dtype=torch.uint8)
        del second

    assert complexity_measure._growth_on_cpu(run) == pytest.approx(12 * mega, rel=0.01)


def test_views_of_one_storage_count_once() -> None:
    x = torch.zeros(100)
    assert tensor_bytes([x, x[:50], x.view(10, 10), 3, None]) == 400


def test_all_steps_take_turns_after_the_warm_up() -> None:
    order: list[str] = []
    times = interleaved_seconds({n: lambda n=n: order.append(n) for n in "ab"}, rounds=2, warmup=1)  # type: ignore[misc]
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cases = [UNET, Case("lost", "Lost", "us_layers_supervised", ("network_nobody_has",)), GRN_SSL]
    return {**measure(cases, BUNDLES, 32, 2, 1, 1), "threads": 1, "provenance": {"versions": {"torch": "2.0"}}}


def test_a_case_that_does_not_build_is_left_out_and_named(measured: dict[str, Any]) -> None:
    assert ["error" in case for case in measured["cases"]] == [False, True, False]
    assert "network_nobody_has" in measured["cases"][1]["error"]
    assert "train" not in measured["cases"][1]
    assert any(note.startswith("Lost was left out: ") for note in complexity_notes(measured))


def test_rows_hold_what_was_measured_with_the_printed_values_beside(measured: dict[str, Any]) -> None:
    unet, raw, sge = complexity_rows(measured)
    assert [row.title for row in (unet, raw, sge)] == ["U-Net", "GRN-SSL", "GRN-SSL w. SGE"]
    assert unet.parameters == unet.trained_parameters == unet.printed_parameters == 661_727
    assert unet.printed_train_seconds == 0.0070
    assert (raw.printed_parameters, raw.printed_train_seconds) == (None, 0.0458)
    assert raw.parameters == 661_727 < sge.parameters < sge.trained_parameters  # D is trained too
    assert unet.flops == count_flops(inference_network(UNET, "raw", BUNDLES, "cpu"), (1, 1, 32, 32))
    assert unet.train_images == (2, 0)
    assert sge.train_images == (2, 2)
    for row in (unet, raw, sge):
        assert row.train_seconds > 0
        assert row.infer_seconds > 0
        assert row.memory is not None
    assert raw.train_seconds == sge.train_seconds


def test_the_table_is_written_with_exact_values(measured: dict[str, Any]) -> None:
    table = complexity_table(measured)
    assert [name for name, _ in table.rows] == ["U-Net", "GRN-SSL", "GRN-SSL w. SGE"]
    assert all(len(cells) == len(table.columns) for _, cells in table.rows)
    cells = dict(zip(table.columns, table.rows[0][1], strict=True))
    assert cells["Parameters"].shown == "661,727"
    assert cells["Training step, printed (s)"].shown == "0.0070"
    assert cells["Images of a step"].shown == "2"
    assert dict(zip(table.columns, table.rows[1][1], strict=True))["Images of a step"].shown == "2 + 2"
    assert "GFLOP an image of 32 × 32" in table.columns
    assert ",661727," in csv_table(table)
    assert "1 CPU thread, torch 2.0" in table.notes[0]


def test_measurements_are_read_from_the_studys_folder(tmp_path: Path, measured: dict[str, Any]) -> None:
    assert load_complexity(tmp_path) is None
    (tmp_path / COMPLEXITY_FILE).write_text(json.dumps(measured))
    assert load_complexity(tmp_path) == measured
    for text in ("{", "[]", '{"cases": 1}'):
        (tmp_path / COMPLEXITY_FILE).write_text(text)
        with pytest.raises(InputError, match=r"complexity\.json: found no .*Measure again"):
            load_complexity(tmp_path)


def test_the_command_measures_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def pretend(cases: list[Case], *rest: Any) -> dict[str, Any]:
        asked.append((cases, rest))
        return {"cases": []}

    monkeypatch.setattr(benchmark, "measure", pretend)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    (tmp_path / "s.yaml").write_text(
        "bundles: here\nmethods: {a: {bundle: x}, b: {bundle: x, group: ablation}, c: {bundle: x}}"
    )

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["complexity", str(tmp_path / "s.yaml"), *words])
        benchmark.main()

    run("--size", "64", "--out", str(tmp_path / "out" / "c.json"))
    cases, (bundles, size, batch, *_) = asked[0]
    assert [case.key for case in cases] == ["a", "c"]
    assert (bundles, size, batch) == (tmp_path / "here", 64, 4)
    assert json.loads((tmp_path / "out" / "c.json").read_text())["provenance"]["versions"]["torch"]
    run("--only", "b")
    assert [case.key for case in asked[1][0]] == ["b"]
    with pytest.raises(SystemExit):
        run("--only", "d")
    assert "no method d; it has a, b, c" in capsys.readouterr().err
