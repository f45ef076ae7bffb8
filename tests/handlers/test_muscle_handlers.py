"""Handlers of the muscle bundles: the schedule of the rate, the table of what was found, the pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from torch.optim.lr_scheduler import ReduceLROnPlateau

from grn_monai.errors import InputError
from grn_monai.handlers import FoundHandler, MuscleOverlayHandler, PlateauSchedule
from grn_monai.report.muscle_overlay import OVERLAP, PREDICTION, TRUTH, chosen_slices, overlay_rgb, write_curves


def schedule(rates: tuple[float, ...] = (1e-3,)) -> tuple[PlateauSchedule, list[torch.optim.Optimizer]]:
    optimizers = [torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates]
    plans = [ReduceLROnPlateau(o, factor=0.1, patience=1, min_lr=4e-5) for o in optimizers]
    return PlateauSchedule(plans, "loss"), list(optimizers)


def validate(handler: PlateauSchedule, losses: list[float]) -> None:
    engine = Engine(lambda *_: None)
    handler.attach(engine)
    for loss in losses:
        engine.state.metrics = {"loss": loss}
        engine.fire_event(Events.EPOCH_COMPLETED)


def test_the_rate_falls_on_a_plateau_and_stays_above_the_lowest() -> None:
    handler, optimizers = schedule((1e-3, 1e-4))

    def rates() -> list[float]:
        return [o.param_groups[0]["lr"] for o in optimizers]

    validate(handler, [1.0, 0.9, 0.9])
    assert rates() == [1e-3, 1e-4]
    validate(handler, [0.9])  # the second without improvement
    assert rates() == pytest.approx([1e-4, 4e-5])
    validate(handler, [0.9, 0.9, 0.9, 0.9])
    assert rates() == pytest.approx([4e-5, 4e-5])


def test_a_resumed_schedule_goes_on_counting() -> None:
    first, _ = schedule()
    validate(first, [0.9, 0.9])
    second, optimizers = schedule()
    second.load_state_dict(first.state_dict())
    validate(second, [0.9])
    assert optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)


def evaluator(pred: torch.Tensor, handler: FoundHandler | MuscleOverlayHandler, **batch: object) -> Engine:
    def step(engine: Engine, item: object) -> None:
        engine.state.output = [{"pred": pred}]
        engine.state.batch = [{"subject": "s", "scan": "a", **batch}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    handler.attach(engine)
    return engine


@pytest.mark.parametrize("some", [True, False])
def test_found_and_nothing_found(tmp_path: Path, some: bool) -> None:
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    labels[0, 0, :3, 0] = 2 * some
    pred = MetaTensor(labels, affine=torch.diag(torch.tensor([2.0, -5, 10, 1])))
    handler = FoundHandler(tmp_path, {0: "background", "1": "left", 2: "right"})
    engine = evaluator(pred, handler)
    for _ in range(2):  # a second run writes the same
        engine.run([0])
    with open(tmp_path / "found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = "0.3" if some else "0"  # 3 voxels of 0.1 ml
    status = "found" if some else "nothing found"
    assert rows == [{"subject": "s", "scan": "a", "status": status, "left (ml)": "0", "right (ml)": right}]


def test_colours_and_orientation_of_a_slice() -> None:
    grey = np.full((4, 3), -1.0)
    truth, pred = np.zeros((4, 3), int), np.zeros((4, 3), int)
    truth[0, 0] = 1  # left, posterior in RAS: below on the right of the picture
    pred[3, 2] = 1  # right, anterior: above on the left
    truth[1, 1] = pred[1, 1] = 1
    truth[2, 1], pred[2, 1] = 1, 2  # another muscle
    rgb = overlay_rgb(grey, truth, pred)
    assert rgb.shape == (3, 4, 3)
    tint = {name: np.rint(0.55 * np.array(c)) for name, c in (("t", TRUTH), ("p", PREDICTION), ("o", OVERLAP))}
    np.testing.assert_array_equal(rgb[2, 3], tint["t"])
    np.testing.assert_array_equal(rgb[0, 0], tint["p"])
    np.testing.assert_array_equal(rgb[1, 2], tint["o"])
    np.testing.assert_array_equal(rgb[1, 1], tint["p"])
    assert (rgb.reshape(-1, 3).sum(1) > 0).sum() == 4


def test_which_slices_are_drawn() -> None:
    truth, pred = np.zeros((2, 2, 10), int), np.zeros((2, 2, 10), int)
    truth[0, 0, 2:5], pred[0, 0, 7] = 1, 1
    assert chosen_slices(truth, pred, 2) == [3, 7]  # of 2, 3, 4, 7
    assert chosen_slices(truth, pred, 9) == [2, 3, 4, 7]
    assert chosen_slices(truth * 0, pred * 0, 2) == [2, 7]
    assert chosen_slices(truth, pred, [0, 9]) == [0, 9]
    for bad in ([10], [], 0):
        with pytest.raises(InputError, match="overlay_slices"):
            chosen_slices(truth, pred, bad)


def test_pictures_are_written_for_the_first_scans(tmp_path: Path) -> None:
    affine = torch.diag(torch.tensor([-1.0, -1, 2, 1]))
    volume = MetaTensor(torch.rand(1, 6, 5, 4) * 2 - 1, affine=affine)
    label = MetaTensor(torch.ones(1, 6, 5, 4, dtype=torch.uint8), affine=affine)
    (tmp_path / "history.csv").write_text(
        "epoch,iteration,seconds,train_loss,val_dice_loss\n1,5,1.0,0.9,\n2,10,1,0.8,0.7\n"
    )
    handler = MuscleOverlayHandler(tmp_path / "out", tmp_path / "history.csv", max_scans=1)
    evaluator(label, handler, picture=volume, label=label).run([0, 1])
    pictures = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    assert pictures == ["curves.png", "overlays/a.png"]
    with pytest.raises(InputError, match="no epochs"):
        write_curves(tmp_path / "none.csv", tmp_path / "x.png")


def test_scans_of_one_name_keep_their_own_pictures(tmp_path: Path) -> None:
    # Each subject's scan may be called "T2"; their files are told apart.
    label = MetaTensor(torch.ones(1, 6, 5, 4, dtype=torch.uint8), affine=torch.eye(4))
    handler = MuscleOverlayHandler(tmp_path)
    items = []
    for name in ("p1.nii.gz", "p2.nii.gz"):
        picture = MetaTensor(torch.zeros(1, 6, 5, 4), affine=torch.eye(4), meta={"filename_or_obj": f"/x/{name}"})
        items.append({"subject": name[:2], "scan": "T2", "picture": picture, "label": label})

    def step(engine: Engine, item: dict[str, object]) -> None:
        engine.state.output, engine.state.batch = [{"pred": label}], [item]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    handler.attach(engine)
    engine.run(items)
    assert sorted(file.name for file in (tmp_path / "overlays").iterdir()) == ["p1.png", "p2.png"]
