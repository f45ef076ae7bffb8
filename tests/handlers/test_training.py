"""Seeding by epoch, early stop, exact resume, best models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch.utils.data import DataLoader

from grn_monai.errors import InputError
from grn_monai.handlers import (
    BestCheckpointSaver,
    EarlyStop,
    HistoryHandler,
    ResumeHandler,
    SeedEpochs,
    fingerprint,
    load_model,
)
from tests.engines.contract import LOSS, adam, items, same, small_generator, small_segmentor, weights
from tests.engines.test_joint_trainer import make_joint


def engine_with_metrics(values: list[float], name: str = "val") -> Engine:
    """An engine whose metric takes the given values, one an epoch."""
    engine = Engine(lambda e, b: None)
    engine.state.rank = 0
    engine.state.metrics = {}
    engine.add_event_handler(Events.EPOCH_STARTED, lambda e: e.state.metrics.update({name: values[e.state.epoch - 1]}))
    return engine


def joint_run(folder: Path, epochs: int, seed: int = 0, **resume: Any) -> Any:
    """A GRN+ training with shuffled data, saved after every epoch; the networks start from the seed."""
    torch.manual_seed(seed)
    network, generator = small_segmentor(), small_generator()
    data = items(6)
    handlers = [
        SeedEpochs(seed),
        ResumeHandler(folder / "checkpoint.pt", {"network": network, "generator": generator}, **resume),
    ]
    return make_joint(
        DataLoader(data, batch_size=2, shuffle=True),
        network=network,
        generator=generator,
        max_epochs=epochs,
        train_handlers=handlers,
    )


def everything(trainer: Any) -> list[torch.Tensor]:
    states = [s for o in trainer.optimizers.values() for s in o.state_dict()["state"].values()]
    return [*weights(trainer.network), *weights(trainer.generator), *(t for s in states for t in s.values())]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = joint_run(tmp_path / "whole", 4)
    whole.run()
    joint_run(tmp_path / "parts", 2).run()
    torch.rand(5)  # a new process would not be at the same place of the random stream either
    second = joint_run(tmp_path / "parts", 4)
    second.run()
    assert second.state.epoch == 4
    assert second.state.iteration == whole.state.iteration == 12
    assert same(everything(whole), everything(second))


def test_data_order_depends_on_seed_and_epoch() -> None:
    orders: dict[tuple[int, int], list[float]] = {}
    for seed in (0, 1):
        trainer = joint_run(Path("unused"), 2, seed=seed, interval=99)
        seen: dict[int, list[float]] = {1: [], 2: []}
        trainer.add_event_handler(
            Events.ITERATION_STARTED,
            lambda e, s=seen: s[e.state.epoch].extend(e.state.batch["image"].flatten(1)[:, 0].tolist()),
        )
        trainer.run()
        orders |= {(seed, epoch): order for epoch, order in seen.items()}
    assert len({tuple(o) for o in orders.values()}) == 4
    assert len({tuple(sorted(o)) for o in orders.values()}) == 1


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    joint_run(tmp_path, 1, identity={"fraction": 0.05}).run()
    with pytest.raises(InputError, match=r"checkpoint\.pt: .*fraction '0\.05', now '1\.0'.*resume: false"):
        joint_run(tmp_path, 1, identity={"fraction": 1.0}).run()
    joint_run(tmp_path, 1, identity={"fraction": 1.0}, resume=False).run()


def test_damaged_and_foreign_checkpoints_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt: found a file that cannot be read"):
        joint_run(tmp_path, 1).run()
    network = torch.nn.Conv2d(1, 7, 1)
    handler = ResumeHandler(tmp_path / "checkpoint.pt", {"network": network})
    trainer = SupervisedTrainer("cpu", 1, [items(1)[0]], network, adam(network), LOSS)
    handler.save(trainer)
    with pytest.raises(InputError, match="another configuration"):
        joint_run(tmp_path, 1).run()


def test_no_temporary_file_stays_and_pickles_are_not_loaded(tmp_path: Path) -> None:
    joint_run(tmp_path, 1).run()
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    torch.save({"model": Path("/")}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt"):
        load_model(tmp_path / "evil.pt", small_segmentor())


def test_early_stop_counts_and_restores(tmp_path: Path) -> None:
    evaluator = engine_with_metrics([])
    trainer = Engine(lambda e, b: None)
    values = [3.0, 2.0, 2.5, 2.6, 1.0]
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: evaluator.state.metrics.update({"val": values[e.state.epoch - 1]})
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: setattr(evaluator.state, "epoch", e.state.epoch))
    stop = EarlyStop(evaluator, "val", patience=2)
    stop.attach(trainer)
    trainer.run([0], max_epochs=5)
    assert trainer.state.epoch == 4
    assert stop.stopped
    fresh = EarlyStop(evaluator, "val", patience=2)
    fresh.attach(Engine(lambda e, b: None))
    assert not fresh.stopped
    fresh.load_state_dict(stop.state_dict())
    assert fresh.stopped


def test_epochs_that_were_not_validated_do_not_count() -> None:
    evaluator = engine_with_metrics([])
    evaluator.state.metrics, evaluator.state.epoch = {"val": 1.0}, 1
    trainer = Engine(lambda e, b: None)
    EarlyStop(evaluator, "val", patience=1).attach(trainer)
    trainer.run([0], max_epochs=4)
    assert trainer.state.epoch == 4


def test_fingerprint_sees_other_files_and_other_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    one, two = {"image": str(tmp_path / "a")}, {"image": str(tmp_path / "b"), "label": None}
    first = fingerprint([one], [two])
    assert first == fingerprint([one], [two])
    assert len({first, fingerprint([one, two], []), fingerprint([two], [one]), fingerprint([one], [])}) == 4
    (tmp_path / "a").write_text("longer")
    assert first != fingerprint([one], [two])


def test_a_model_is_not_used_with_other_options(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    engine = engine_with_metrics([1.0])
    BestCheckpointSaver(str(tmp_path), {"model": network}, "val", options={"slice_size": [64, 64]}).attach(engine)
    engine.run([0], max_epochs=1)
    load_model(tmp_path / "model.pt", network, options={"slice_size": [64, 64]})
    with pytest.raises(InputError, match=r"trained with slice_size \[64, 64\].*Give `--slice_size \[64, 64\]`"):
        load_model(tmp_path / "model.pt", network, options={"slice_size": [256, 256]})


def test_best_saver_keeps_the_lowest_and_remembers_it(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    engine = engine_with_metrics([3.0, 1.0, 2.0, float("nan")])
    engine.add_event_handler(Events.EPOCH_STARTED, lambda e: network.weight.data.fill_(e.state.epoch))
    saver = BestCheckpointSaver(str(tmp_path), {"model": network}, "val")
    saver.attach(engine)
    engine.run([0], max_epochs=4)
    assert (saver.best, saver.best_epoch) == (1.0, 2)
    assert load_model(tmp_path / "model.pt", torch.nn.Linear(1, 1, bias=False)).weight.item() == 2
    resumed = BestCheckpointSaver(str(tmp_path), {"model": network}, "val")
    resumed.load_state_dict(saver.state_dict())
    engine = engine_with_metrics([1.5])
    resumed.attach(engine)
    engine.run([0], max_epochs=1)
    assert load_model(tmp_path / "model.pt", torch.nn.Linear(1, 1, bias=False)).weight.item() == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "found no file"),
        (lambda p: torch.save({"other": {}}, p), "entries.*'other'.*an entry 'model'"),
        (lambda p: torch.save({"model": {"weight": torch.zeros(3)}}, p), "weights of another network"),
    ],
)
def test_load_model_never_leaves_random_weights_in_silence(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "m.pt")
    with pytest.raises(InputError, match=words):
        load_model(tmp_path / "m.pt", small_segmentor())


def test_history_keeps_means_metrics_and_earlier_rows(tmp_path: Path) -> None:
    evaluator = engine_with_metrics([])
    evaluator.state.metrics = {"val_dice_loss": 0.5}

    def step(engine: Engine, x: float) -> dict[str, torch.Tensor]:
        return {"loss": torch.tensor(float(x)), "pred": torch.zeros(2, 2)}

    def run(start: int, end: int) -> None:
        engine = Engine(step)
        engine.state.rank = 0
        engine.state.iteration, engine.state.epoch = 2 * start, start
        HistoryHandler(tmp_path / "history.csv", evaluator).attach(engine)
        engine.state.max_epochs, engine.state.epoch_length = end, 2
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(evaluator.state, "epoch", e.state.epoch))
        engine.run([1, 4], max_epochs=end)

    run(0, 2)
    run(1, 3)  # resumed after epoch 1: epoch 2 is written anew
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,iteration,seconds,train_loss,val_dice_loss"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert all(line.split(",")[3:] == ["2.5", "0.5"] for line in lines[1:])
