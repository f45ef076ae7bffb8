"""SGEEvaluator gives both modes; ScanEvaluator goes on past bad scans."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.handlers import IgniteMetricHandler, from_engine
from torch import nn
from torch.utils.data import DataLoader

from grn_monai.data import ScanDataset, scan_list
from grn_monai.engines import ScanEvaluator, SGEEvaluator
from grn_monai.errors import InputError
from grn_monai.networks import EnhancedSegmentor
from tests.engines.contract import LOSS, items, small_generator, small_segmentor


def test_both_modes_have_their_prediction_and_metric() -> None:
    torch.manual_seed(0)
    network = EnhancedSegmentor(small_generator(), small_segmentor())
    data = items(4)

    def metric(key: str) -> IgniteMetricHandler:
        return IgniteMetricHandler(loss_fn=LOSS, output_transform=from_engine([key, "label"]), save_details=False)

    evaluator = SGEEvaluator(
        "cpu",
        DataLoader(data, batch_size=4),
        network,
        key_val_metric={"raw": metric("pred")},
        additional_metrics={"sge": metric("pred_sge")},
        decollate=False,
    )
    evaluator.run()
    x, y = (torch.stack([d[k] for d in data]) for k in ("image", "label"))
    network.eval()
    with torch.no_grad():
        raw, sge = LOSS(network.segment(x), y), LOSS(network(x), y)
    assert evaluator.state.metrics["raw"] == pytest.approx(raw.item(), abs=1e-5)
    assert evaluator.state.metrics["sge"] == pytest.approx(sge.item(), abs=1e-5)
    assert raw != sge


class Identity(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def load(item: dict[str, Any]) -> dict[str, Any]:
    if item["image"].startswith("bad"):
        raise RuntimeError("applying transform") from InputError(item["image"], "nothing", "a scan", "Mend it.")
    return {"image": torch.ones(1, 2, 2, 2), "name": item["image"]}


def run(names: list[str], **options: Any) -> tuple[ScanEvaluator, list[str]]:
    done: list[str] = []
    loader = DataLoader(ScanDataset([{"image": n} for n in names], load), batch_size=1)
    evaluator = ScanEvaluator("cpu", loader, Identity(), **options)
    evaluator.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda e: done.append(e.state.batch[0]["name"]))
    evaluator.run()
    return evaluator, done


def test_all_good_scans_are_handled() -> None:
    evaluator, done = run(["a", "b"])
    assert done == ["a", "b"]
    assert evaluator.failures == []


def test_a_bad_scan_is_skipped_listed_and_told_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["a", "bad1", "c", "bad2"])
    assert stop.value.code == 1
    err = capsys.readouterr().err
    assert "2 of 4 scans failed" in err
    assert "bad1: found nothing; expected a scan. Mend it." in err


def test_an_input_error_while_saving_counts_as_a_failure() -> None:
    def attach_failing(engine: ScanEvaluator) -> None:
        def fail(_: Any) -> None:
            raise RuntimeError("applying transform") from InputError("out", "no space", "space", "Free some.")

        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, fail)

    class Handler:
        def attach(self, engine: Any) -> None:
            attach_failing(engine)

    with pytest.raises(SystemExit):
        run(["a"], val_handlers=[Handler()])


def test_an_error_of_the_program_is_not_swallowed() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    loader = DataLoader(ScanDataset([{"image": "a"}], load), batch_size=1)
    with pytest.raises(ZeroDivisionError):
        ScanEvaluator("cpu", loader, Broken()).run()


def test_several_volumes_of_an_inferer_are_put_side_by_side() -> None:
    seen = []
    loader = DataLoader(ScanDataset([{"image": "a"}], load), batch_size=1)
    evaluator = ScanEvaluator("cpu", loader, Identity(), inferer=lambda x, net: {"pred": x, "enhanced": 2 * x})
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output[0]))
    evaluator.run()
    assert (seen[0]["enhanced"] == 2 * seen[0]["pred"]).all()


def test_scan_list(tmp_path: Any) -> None:
    (tmp_path / "b.MHA").touch()
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / ".hidden.nii.gz").touch()
    (tmp_path / "notes.txt").touch()
    assert [i["image"] for i in scan_list(tmp_path)] == [str(tmp_path / n) for n in ("a.nii.gz", "b.MHA")]
    assert scan_list(tmp_path / "b.MHA") == [{"image": str(tmp_path / "b.MHA")}]
    assert scan_list(["x", "y"]) == [{"image": "x"}, {"image": "y"}]
    with pytest.raises(InputError, match="no such file"):
        scan_list(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither dataset\.json nor a scan"):
        scan_list(tmp_path / "empty")
