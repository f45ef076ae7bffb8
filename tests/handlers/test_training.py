"""Seeding by epoch, early stop, stop at values that are not finite, exact resume, best models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from grn_monai.data import TwoStreamBatchSampler
from grn_monai.errors import InputError
from grn_monai.handlers import (
    BestCheckpointSaver,
    EarlyStop,
    HistoryHandler,
    NonFiniteStop,
    ResumeHandler,
    RunRecord,
    SeedEpochs,
    fingerprint,
    load_model,
)
from tests.data.test_two_stream import streams
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


class Told(torch.utils.data.Sampler[Any]):
    """A sampler of single indices or of batches that gives the number of the epoch it was told."""

    def __init__(self, length: int, batches: bool = False) -> None:
        self.length, self.batches, self.epoch = length, batches, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        epoch = self.epoch  # at the call: what a loader's iterator takes with it
        return iter([[epoch, epoch] if self.batches else epoch] * self.length)


def seen_by_epoch(
    loader: DataLoader, epochs: int = 3, done: int = 0, epoch_length: int | None = None
) -> dict[int, list[Any]]:
    """What each epoch of a run reads; ``done``: as if resumed after that epoch by a handler attached later."""
    length = len(loader) if epoch_length is None else epoch_length
    engine = Engine(lambda e, batch: seen.setdefault(e.state.epoch, []).append(batch.tolist()))
    seen: dict[int, list[Any]] = {}
    SeedEpochs(0).attach(engine)
    state = {"epoch_length": length, "max_epochs": epochs, "iteration": done * length}
    engine.add_event_handler(Events.STARTED, lambda e: e.load_state_dict(state) if done else None)
    engine.run(loader, max_epochs=epochs, epoch_length=length)
    return seen


WORKERS: list[dict[str, Any]] = [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}]


@pytest.mark.parametrize("workers", WORKERS, ids=["main", "workers", "persistent"])
@pytest.mark.parametrize("batches", [True, False], ids=["batch_sampler", "sampler"])
@pytest.mark.parametrize("epoch_length", [None, 3, 7])
@pytest.mark.parametrize("done", [0, 1])
def test_samplers_are_told_the_epoch_before_its_first_batch_is_chosen(
    workers: dict[str, Any], batches: bool, epoch_length: int | None, done: int
) -> None:
    options = {"batch_sampler": Told(5, True)} if batches else {"sampler": Told(5)}
    seen = seen_by_epoch(DataLoader(range(9), **options, **workers), 3, done, epoch_length)
    expected = {e: [[e, e] if batches else [e]] * (epoch_length or 5) for e in range(done + 1, 4)}
    assert seen == expected


@pytest.mark.parametrize("workers", WORKERS, ids=["main", "workers", "persistent"])
@pytest.mark.parametrize("epoch_length", [None, 2])
def test_two_streams_resume_exactly(workers: dict[str, Any], epoch_length: int | None) -> None:
    def run(done: int) -> dict[int, list[Any]]:
        sampler = TwoStreamBatchSampler(streams(7, 17), 2, 3)
        return seen_by_epoch(DataLoader(range(24), batch_sampler=sampler, **workers), 4, done, epoch_length)

    whole = run(0)
    assert len({str(batches) for batches in whole.values()}) == 4
    assert run(2) == {epoch: whole[epoch] for epoch in (3, 4)}


def test_distributed_samplers_shuffle_anew_in_each_epoch() -> None:
    def run(done: int, rank: int = 0) -> dict[int, list[Any]]:
        sampler = DistributedSampler(range(12), num_replicas=2, rank=rank, shuffle=True)
        return seen_by_epoch(DataLoader(range(12), sampler=sampler, batch_size=2), 3, done)

    whole, other = run(0), run(0, rank=1)
    assert len({str(batches) for batches in whole.values()}) == 3
    assert run(1) == {epoch: whole[epoch] for epoch in (2, 3)}
    for epoch in (1, 2, 3):
        assert sorted(i for batches in (whole, other) for b in batches[epoch] for i in b) == list(range(12))


def stopping_run(folder: Path, *extra: Any, items: Any = None, **options: Any) -> SupervisedTrainer:
    """A training of 4 scans in 2 iterations an epoch, stopped at values that are not finite, and saved."""
    torch.manual_seed(0)
    network = small_segmentor()
    return SupervisedTrainer(
        "cpu",
        3,
        DataLoader(scans() if items is None else items, batch_size=2),
        network,
        torch.optim.SGD(network.parameters(), lr=0.01),
        LOSS,
        train_handlers=[NonFiniteStop(), *extra, ResumeHandler(folder / "checkpoint.pt", {"model": network})],
        **options,
    )


def scans() -> list[dict[str, Any]]:
    return [{**item, "scan": f"p{n}_left"} for n, item in enumerate(items(4))]


def saved_epoch(folder: Path) -> int:
    """The epoch of the checkpoint, all of whose weights are finite."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert all(t.isfinite().all() for t in state["modules"]["model"].values())
    return state["trainer"]["iteration"] // state["trainer"]["epoch_length"]


@pytest.mark.parametrize("decollate", [True, False])
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, decollate: bool) -> None:
    data = scans()
    trainer = stopping_run(tmp_path, RunRecord(tmp_path / "run.json", config={}), items=data, decollate=decollate)
    trainer.add_event_handler(Events.EPOCH_STARTED(once=2), lambda e: data[3].update(image=data[3]["image"] / 0))
    with pytest.raises(InputError) as error:
        trainer.run()
    assert error.value.where == "training"
    assert error.value.found == ("loss nan at iteration 4 (epoch 2); all terms: loss nan; scans: p2_left, p3_left")
    assert "Look at these scans" in error.value.mend
    assert saved_epoch(tmp_path) == 1
    assert "loss nan at iteration 4" in (tmp_path / "run.json").read_text()


@pytest.mark.parametrize("decollate", [True, False])
def test_weights_that_broke_in_the_last_step_of_an_epoch_are_not_saved(tmp_path: Path, decollate: bool) -> None:
    trainer = stopping_run(tmp_path, decollate=decollate)

    def explode(engine: Any) -> None:
        if engine.state.iteration == 4:
            for parameter in engine.network.parameters():
                parameter.grad *= 1e30
            engine.optimizer.param_groups[0]["lr"] = 1e30

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, explode)
    with pytest.raises(
        InputError, match=r"weights of network that are NaN or infinite \(.*weight.*after epoch 2"
    ) as error:
        trainer.run()
    assert "; all terms: loss 0." in error.value.found
    assert "scans" not in error.value.found
    assert saved_epoch(tmp_path) == 1


@pytest.mark.parametrize("part", ["network", "generator", "discriminator", "teacher"])
def test_every_part_is_looked_at(part: str) -> None:
    def check(module: torch.nn.Module) -> None:
        engine = Engine(lambda e, b: {})
        if part == "teacher":
            engine.modules = {part: module}
        else:
            setattr(engine, part, module)
        NonFiniteStop().attach(engine)
        engine.run([0])

    mask = torch.nn.Linear(2, 2)
    mask.register_buffer("mask", torch.tensor(float("-inf")))
    for good in (mask, torch.nn.BatchNorm2d(2), torch.nn.Identity()):
        check(good)
    statistics = torch.nn.BatchNorm2d(2)
    statistics.running_mean[1] = float("nan")
    with pytest.raises(InputError, match=rf"weights of {part}.*\(running_mean\) after epoch 1; expected"):
        check(statistics)
    many = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(12)))
    for parameter in many.parameters():
        parameter.data.fill_(float("inf"))
    with pytest.raises(InputError, match=r"\(0\.weight, 0\.bias, .*, 4\.bias and 14 more\)"):
        check(many)


def looked_at(output: Any, batch: Any = None, interval: int = 1, iterations: int = 1, **state: Any) -> None:
    """Run one epoch whose every iteration gives the output; ``state`` joins the engine's state."""
    engine = Engine(lambda e, b: output)
    vars(engine.state).update(state)
    NonFiniteStop(interval).attach(engine)
    engine.run([batch] * iterations)


def test_all_terms_and_both_streams_are_named() -> None:
    output = {
        "pred": torch.full((2, 2), float("nan")),
        "loss": torch.tensor(float("nan"), requires_grad=True),
        "stage1_loss": torch.tensor(float("-inf"), dtype=torch.bfloat16),
        "loss_raw": 0.25,
        "count": torch.tensor(3),
    }
    batch = {"scan": ["a", "b", "a"], "unlabeled_scan": [f"u{n}" for n in range(12)]}
    with pytest.raises(InputError) as error:
        looked_at(output, batch)
    assert error.value.found == (
        "loss nan, stage1_loss -inf at iteration 1 (epoch 1); "
        "all terms: loss_raw 0.25, loss nan, stage1_loss -inf, count 3; "
        "scans: a, b; unlabelled scans: u0, u1, u2, u3, u4, u5, u6, u7, u8, u9 and 2 more"
    )
    padded = [{"scan": "a", "unlabeled_scan": "u"}, {"scan": "b", "unlabeled_scan": None}]
    with pytest.raises(InputError, match="; scans: a, b; unlabelled scans: u;"):
        looked_at([{"loss": float("inf")}] * 2, padded)
    with pytest.raises(InputError, match=r"all terms: loss inf; expected.*Look at the scans"):
        looked_at([{"loss": float("inf")}], torch.zeros(2))


@pytest.mark.parametrize("output", [None, torch.tensor(float("nan")), [], {}, {"loss": 0.5, "pred": torch.zeros(2)}])
def test_outputs_without_bad_scalars_pass(output: Any) -> None:
    looked_at(output)


def test_the_interval_between_two_looks() -> None:
    looked_at({"loss": float("nan")}, interval=3, iterations=2)
    with pytest.raises(InputError, match=r"at iteration 3 \(epoch 1; looked at every 3 iterations\)"):
        looked_at({"loss": float("nan")}, interval=3, iterations=4)
    with pytest.raises(InputError, match="interval: found 0"):
        NonFiniteStop(0)


def test_gradient_norms_may_overflow_under_a_float16_scaler_only() -> None:
    output = {"loss": torch.tensor(1.0), "grad_norm_generator": torch.tensor(float("inf"))}
    looked_at(output, joint_scaler=torch.amp.GradScaler("cpu"))
    looked_at({"unlabeled_grad_norm_segmentor": float("inf")}, joint_scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(InputError, match=r"found loss nan at"):
        looked_at({**output, "loss": float("nan")}, joint_scaler=torch.amp.GradScaler("cpu"))
    for state in ({}, {"joint_scaler": torch.amp.GradScaler("cpu", enabled=False)}):
        with pytest.raises(InputError, match="found grad_norm_generator inf at iteration 1"):
            looked_at(output, **state)


def test_a_look_copies_once_from_the_device() -> None:
    copies = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                copies.append(args)
            return func(*args, **(kwargs or {}))

    with Spy():
        looked_at({f"loss_{n}": torch.tensor(1.0) for n in range(5)})
        assert copies == []
        float(torch.tensor(1.0))  # what the loop over the terms would do
        assert len(copies) == 1


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    joint_run(tmp_path, 1, identity={"fraction": 0.05}).run()
    with pytest.raises(InputError, match=r"checkpoint\.pt: .*fraction '0\.05', now '1\.0'.*resume: false"):
        joint_run(tmp_path, 1, identity={"fraction": 1.0}).run()
    with pytest.raises(InputError, match=r"fraction '0\.05', now None"):
        joint_run(tmp_path, 1).run()
    with pytest.raises(InputError, match=r"augment None, now 'True'"):
        joint_run(tmp_path, 1, identity={"fraction": 0.05, "augment": True}).run()
    joint_run(tmp_path, 1, identity={"fraction": 1.0}, resume=False).run()


def test_a_checkpoint_of_another_run_can_be_refused_before_the_training(tmp_path: Path) -> None:
    ResumeHandler(tmp_path / "checkpoint.pt", {}, identity={"seed": 1}).check()  # none there yet
    joint_run(tmp_path, 1, identity={"seed": 0}).run()
    ResumeHandler(tmp_path / "checkpoint.pt", {}, identity={"seed": 0}).check()
    ResumeHandler(tmp_path / "checkpoint.pt", {}, identity={"seed": 1}, resume=False).check()
    with pytest.raises(InputError, match=r"seed '0', now '1'"):
        ResumeHandler(tmp_path / "checkpoint.pt", {}, identity={"seed": 1}).check()


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


def test_plain_weights_are_taken_and_have_to_fit_too(tmp_path: Path) -> None:
    network = small_segmentor()
    state = {k: torch.full_like(v, 0.5) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save(state, tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", network, options={"slice_size": [64, 64]}).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())
    for wrong in ({**state, "more": torch.zeros(1)}, dict(list(state.items())[1:])):
        torch.save(wrong, tmp_path / "m.pt")
        with pytest.raises(InputError, match="weights of another network"):
            load_model(tmp_path / "m.pt", network)


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
