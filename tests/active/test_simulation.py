"""The bookkeeping of `benchmarks.active_learning`: what is chosen, what is not done again, how stages are summed up."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import active_learning as simulation
from benchmarks._active import active_table, chosen_dice, correlations, summary

POOL = [f"scan-{i:02d}" for i in range(12)]
HARD = {name: i / 100 for i, name in enumerate(POOL)}
"""The pretended disagreement of each scan; the last ones are the hardest."""


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    sections = {"training": POOL, "validation": ["v"], "test": ["t1", "t2"]}
    content = {section: [{"scan": name} for name in names] for section, names in sections.items()}
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "dataset.json").write_text(json.dumps({**content, "simulated": True}))
    options = {"cohort": tmp_path / "cohort", "work": tmp_path / "work", "out": tmp_path / "result.json", "seeds": [3],
               "strategies": ["disagreement", "random"], "iterations": 8, "size": 32, "base_channels": 4,
               "learning_rate": 0.001, "threads": 1}  # fmt: skip
    return argparse.Namespace(**options)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The scans of each training; no network is trained, the Dice grows with what is learnt of hard scans."""
    made: list[tuple[str, ...]] = []

    def train(stage: simulation.Stage, items: Mapping[str, Any], args: argparse.Namespace) -> None:
        assert set(items) == set(POOL)
        made.append(stage.labelled)
        record = stage.folder / "run" / "run.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"iterations": 8, "git": {"commit": "abc"}}))

    def predict(module: tuple[str, ...], item: Mapping[str, Any], args: argparse.Namespace) -> dict[str, float | None]:
        score = HARD.get(item["scan"], 0.5)
        dice = sum(HARD[name] for name in module) if item["scan"] not in HARD else 1 - score
        return {"disagreement": score, "planes": score, "sge": None, "entropy": -score, "planes_percent": score,
                "sge_percent": score, "slice": dice / 2, "decoded": dice}  # fmt: skip

    monkeypatch.setattr(simulation, "train", train)
    monkeypatch.setattr(simulation, "predict", predict)
    monkeypatch.setattr(simulation, "network", lambda stage, args: stage.labelled)
    monkeypatch.setattr(
        simulation, "datalist", lambda cohort, section: json.loads((cohort / "dataset.json").read_text())[section]
    )
    return made


def test_the_hardest_scans_are_chosen_and_nothing_is_done_twice(
    args: argparse.Namespace, trained: list[tuple[str, ...]]
) -> None:
    simulation.simulate(args)
    assert [len(labelled) for labelled in trained] == [1, 2, 2, 4, 4, 8, 8]  # the first scan is shared
    result = json.loads(args.out.read_text())
    assert result["simulated"] is True
    assert result["cohort"] == {"training": 12, "validation": 1, "test": 2}
    stages = {(s["strategy"], s["scans"]): s for s in result["stages"]}
    order = [POOL[i] for i in np.random.default_rng(3).permutation(12)]
    hardest = [name for name in reversed(POOL) if name != order[0]]
    for size in simulation.SIZES:
        assert stages["disagreement", size]["labelled"] == [order[0], *hardest[: size - 1]]
        assert stages["random", size]["labelled"] == order[:size]
        assert set(stages["random", size]["left"]) == set(order[size:])
    simulation.simulate(args)
    assert len(trained) == 7
    (args.work / "seed_3" / "random" / "scans_8" / "stage.json").unlink()
    (args.work / "seed_3" / "random" / "scans_8" / "run" / "run.json").unlink()
    (args.work / "seed_3" / "random" / "scans_8" / "run").rmdir()
    simulation.simulate(args)
    assert trained[7:] == [tuple(order[:8])]


@pytest.mark.parametrize(("name", "value"), [("iterations", 9), ("size", 64), ("learning_rate", 0.1)])
def test_stages_of_other_settings_are_refused(
    args: argparse.Namespace, trained: list[tuple[str, ...]], name: str, value: Any
) -> None:
    simulation.simulate(args)
    setattr(args, name, value)
    with pytest.raises(RuntimeError, match=f"of other settings .*{name}"):
        simulation.simulate(args)


def test_scores_are_ranked_and_random_follows_its_order() -> None:
    left: dict[str, dict[str, Any]] = {"a": {"entropy": 0.1}, "b": {"entropy": None}, "c": {"entropy": 0.3}}
    assert simulation.choose("entropy", left, 2, ["b", "a", "c"]) == ("c", "a")
    assert simulation.choose("random", left, 2, ["x", "b", "a", "c"]) == ("b", "a")


def stage(strategy: str, seed: int, decoded: float, left: dict[str, tuple[float | None, float]]) -> dict[str, Any]:
    scores = {
        name: {**dict.fromkeys(("planes", "sge", "entropy", "planes_percent", "sge_percent")),
               "disagreement": score, "decoded": dice}
        for name, (score, dice) in left.items()
    }  # fmt: skip
    test = {"slice": decoded / 2, "decoded": decoded}
    return {"strategy": strategy, "seed": seed, "scans": 2, "labelled": ["x", strategy], "test": test, "left": scores}


def test_differences_to_random_are_paired_by_seed() -> None:
    found = [("random", 1, 0.5), ("random", 0, 0.3), ("entropy", 0, 0.4), ("entropy", 1, 0.8), ("entropy", 2, 0.9)]
    result = summary([stage(strategy, seed, dice, {}) for strategy, seed, dice in found])
    assert result["entropy"]["2"]["decoded"]["mean"] == pytest.approx(0.7)
    assert result["entropy"]["2"]["minus_random"]["decoded"]["values"] == pytest.approx([0.1, 0.3])
    assert result["entropy"]["2"]["minus_random"]["slice"]["mean"] == pytest.approx(0.1)
    assert "minus_random" not in result["random"]["2"]


def test_correlation_with_the_true_dice() -> None:
    falling = stage("random", 0, 0.5, {"a": (0.1, 0.9), "b": (0.2, 0.5), "c": (9.0, 0.1), "d": (None, 0.0)})
    swapped = stage("random", 1, 0.5, {"a": (0.1, 0.5), "b": (0.2, 0.9), "c": (9.0, 0.1)})
    found = correlations([falling, falling, swapped])["2"]  # a stage that two strategies share counts once
    assert found["disagreement"]["values"] == pytest.approx([-1, -0.5])
    assert set(found) == {"disagreement"}


def test_a_constant_score_has_no_correlation() -> None:
    flat = stage("random", 0, 0.5, {"a": (0.1, 0.9), "b": (0.1, 0.5), "c": (0.1, 0.1)})
    assert correlations([flat])["2"] == {}


def test_the_tables_cells() -> None:
    found = [("random", 0, 0.30), ("random", 1, 0.50), ("entropy", 0, 0.40), ("entropy", 1, 0.80)]
    left: dict[str, tuple[float | None, float]] = {"a": (0.1, 0.9), "b": (0.2, 0.5), "c": (9.0, 0.1)}
    found += [("disagreement", 0, 0.30), ("disagreement", 1, 0.70)]
    stages = [stage(strategy, seed, dice, left) for strategy, seed, dice in found]
    stages += [{**stage("random", 0, 0.1, left), "scans": 1, "labelled": ["x"]}]
    settings = {"sizes": [1, 2], "base_channels": 4, "iterations": 8, "batch": 4, "size": 32, "validations": 2}
    cohort = {"training": 12, "validation": 1, "test": 2}
    result = {"settings": settings, "cohort": cohort, "simulated": True, "summary": summary(stages),
              "correlations": correlations(stages), "stages": stages}  # fmt: skip
    table = active_table(result)
    assert "| random, decoded | 10.0 (1 seed) | 40.0 ± 14.1 |" in table
    assert "| entropy, slices |  | 30.0 ± 14.1 |" in table
    assert "| entropy, decoded | +20.0 ± 14.1 (+10.0, +30.0) |" in table
    assert "| score | 1 scan (1 model) | 2 scans (6 models) |" in table
    assert "| disagreement | -1.00 | -1.00 ± 0.00 |" in table
    assert "over 2 seeds" in table
    assert "entropy was above random in 2 of 2 comparisons;" in table
    assert "disagreement was above random in 1 of 2 comparisons and the same in 1;" in table
    assert "disagreement was above entropy in 0 of 2 comparisons." in table


def test_how_bad_the_chosen_scans_were() -> None:
    left: dict[str, tuple[float | None, float]] = {"a": (0.1, 0.9), "b": (0.2, 0.5), "c": (9.0, 0.1)}
    later = stage("entropy", 0, 0.5, {"a": (0.1, 0.9)})
    stages = [{**stage("entropy", 0, 0.5, left), "scans": 1, "labelled": ["x"]}, {**later, "labelled": ["x", "b", "c"]}]
    assert chosen_dice(stages) == {"entropy": (pytest.approx(0.3), pytest.approx(0.5))}
    assert chosen_dice(stages[1:]) == {}


def test_the_network_is_the_bundles(args: argparse.Namespace, tmp_path: Path) -> None:
    """A checkpoint as the bundle writes it is taken whole, and one of other parts is refused."""
    one = simulation.Stage(0, "random", ("a",), tmp_path)
    (one.folder / "run" / "models").mkdir(parents=True)
    file = one.folder / "run" / "models" / "model.pt"
    from monai.networks.nets import UNet

    from grn_monai.networks import EnhancedSegmentor, ResNetGenerator

    torch.manual_seed(0)
    unet = UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2))
    made = EnhancedSegmentor(ResNetGenerator(base_channels=4), unet).eval()
    torch.save({"model": made.state_dict()}, file)
    x = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(simulation.network(one, args)(x), made(x))
    torch.save({"model": made.segmentor.state_dict()}, file)
    with pytest.raises(RuntimeError, match="not in the checkpoint"):
        simulation.network(one, args)
