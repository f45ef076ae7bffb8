"""nnU-Net's own commands: where they are, what they are called with, and a preset for machines without a GPU."""

from __future__ import annotations

import copy
import json
import math
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grn_monai
from grn_monai.errors import InputError
from grn_monai.files import write_whole
from grn_monai.study.commands import Command
from grn_monai.study.outside.nnunet_dataset import DATASET, IMAGES

__all__ = ["PACKAGES", "Settings", "add_small", "find_nnunet", "nnunet_versions", "stage_commands"]

ENVIRONMENT = ".venv-nnunet"
TRAINER = "nnUNetTrainerStudy"
PACKAGES = ("nnunetv2", "torch", "dynamic_network_architectures", "batchgeneratorsv2", "acvl_utils", "numpy")

SMALL = {"2d": (4, 256), "3d_fullres": (2, 64)}
"""Configuration to the batch size and the longest side of a patch of the small preset."""


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, beside the cohort.

    Args:
        fraction: share of the labels, in (0, 1].
        seed: of the labelled subjects and of the initial weights.
        configuration: nnU-Net's "2d" or "3d_fullres".
        preset: "planned", as nnU-Net plans it for a GPU of 8 GB, or "small", see `add_small`.
        epochs: nnU-Net's own number is 1000.
        iterations: batches of an epoch; nnU-Net's own number is 250.
    """

    fraction: float
    seed: int = 0
    configuration: str = "2d"
    preset: str = "planned"
    epochs: int = 1000
    iterations: int = 250

    @property
    def planned(self) -> str:
        """The configuration's name in nnU-Net's plans."""
        return self.configuration + ("_small" if self.preset == "small" else "")

    @property
    def title(self) -> str:
        """Name in tables: it says by how much the training is not nnU-Net's own."""
        stock = Settings(self.fraction)
        parts = [f"nnU-Net {self.configuration}"]
        if self.preset == "small":
            parts.append("small")
        if (self.epochs, self.iterations) != (stock.epochs, stock.iterations):
            share = self.epochs * self.iterations / (stock.epochs * stock.iterations)
            parts.append(f"{100 * share:.2g} % of its iterations")
        return ", ".join(parts)

    def record(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def find_nnunet(folder: Path | None = None) -> Path:
    """The folder of nnU-Net's commands.

    Args:
        folder: an environment that has nnU-Net; None looks for `.venv-nnunet` here and beside the package, then in
            PATH.

    Raises:
        InputError: there are none.
    """
    places = [folder] if folder else [Path(ENVIRONMENT), Path(grn_monai.__file__).parents[1] / ENVIRONMENT]
    for place in places:
        for found in (place / "bin", place):
            if (found / "nnUNetv2_train").is_file():
                return found.resolve()
    on_path = None if folder else shutil.which("nnUNetv2_train")
    if on_path:
        return Path(on_path).resolve().parent
    mend = "`make setup-nnunet` makes it; `--nnunet FOLDER` names another one."
    raise InputError(places[0], "no nnU-Net", "an environment with nnU-Net v2 (nnUNetv2_train)", mend)


def nnunet_versions(bin_dir: Path) -> dict[str, str | None]:
    """Versions of what matters in nnU-Net's environment; empty where that has no Python beside its commands."""
    code = (
        "import importlib.metadata as m, json\n"
        "def version(name):\n try:\n  return m.version(name)\n except m.PackageNotFoundError:\n  return None\n"
        f"print(json.dumps({{name: version(name) for name in {PACKAGES!r}}}))"
    )
    try:
        done = subprocess.run([bin_dir / "python", "-c", code], capture_output=True, text=True, check=True)
        versions: dict[str, str | None] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return {}
    return versions


def add_small(plans_file: Path, configuration: str) -> dict[str, Any]:
    """Add the configuration NAME_small to nnU-Net's plans: smaller batches and patches, half the features.

    nnU-Net plans them to fill a GPU of 8 GB, too much for a CPU. The stages of the network stay as planned, so a side
    of the patch stays a multiple of what its strides divide by.

    Args:
        plans_file: plans that nnU-Net wrote.
        configuration: "2d" or "3d_fullres".

    Returns:
        The configuration added.

    Raises:
        InputError: nnU-Net did not plan that configuration.
    """
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    planned = plans["configurations"].get(configuration)
    if planned is None:
        known = " or ".join(plans["configurations"])
        raise InputError(plans_file, f"no configuration {configuration!r}", known, "Choose another --configuration.")
    batch, longest = SMALL[configuration]
    factors = [math.prod(axis) for axis in zip(*planned["architecture"]["arch_kwargs"]["strides"], strict=True)]
    # Two voxels are left at the bottom at least: instance norm cannot train on one.
    patch = [
        min(side, max(longest // factor, 2) * factor)
        for side, factor in zip(planned["patch_size"], factors, strict=True)
    ]
    architecture = copy.deepcopy(planned["architecture"])
    features = architecture["arch_kwargs"]["features_per_stage"]
    architecture["arch_kwargs"]["features_per_stage"] = [max(1, number // 2) for number in features]
    small = {
        "inherits_from": configuration,
        "batch_size": min(batch, planned["batch_size"]),
        "patch_size": patch,
        "architecture": architecture,
    }
    plans["configurations"][f"{configuration}_small"] = small
    write_whole(plans_file, json.dumps(plans, indent=4) + "\n")
    return small


def stage_commands(
    folder: Path, settings: Settings, bin_dir: Path, device: str, threads: int, workers: int
) -> Mapping[str, Command]:
    """The commands of a run, by stage: "plan", "training", and "predict_SECTION" for each section that can be.

    Args:
        folder: of the run; nnU-Net's three folders lie in it.
        settings: of the run.
        bin_dir: as `find_nnunet` gives it.
        device: "cpu", "cuda" or "mps".
        threads: of torch on a CPU.
        workers: processes that read, augment and write.
    """
    environment = {f"nnUNet_{name}": str(folder / f"nnUNet_{name}") for name in ("raw", "preprocessed", "results")}
    environment |= {
        "nnUNet_extTrainer": str(Path(__file__).parent / "nnunet_trainer"),
        "nnUNet_n_proc_DA": str(workers),
        "nnUNet_def_n_proc": str(workers),
        "GRN_NNUNET_EPOCHS": str(settings.epochs),
        "GRN_NNUNET_ITERATIONS": str(settings.iterations),
        "GRN_NNUNET_SEED": str(settings.seed),
        "GRN_NNUNET_MIRRORING": "0" if settings.preset == "small" else "1",
    }
    if device == "cpu":
        environment["GRN_NNUNET_THREADS"] = str(threads)
    prefix = ("env", *(f"{name}={value}" for name, value in environment.items()))

    def command(name: str, *options: str) -> Command:
        return Command((*prefix, str(bin_dir / f"nnUNetv2_{name}"), *options), folder)

    dataset, many = str(int(DATASET[7:10])), str(workers)
    results = folder / "nnUNet_results" / DATASET / f"{TRAINER}__nnUNetPlans__{settings.planned}" / "fold_0"
    # Without a checkpoint there is nothing to continue, and nnU-Net would only warn.
    resume = ("--c",) if any(results.glob("checkpoint_*.pth")) else ()
    own = ("-tr", TRAINER, "-device", device)
    plan = ("-d", dataset, "-c", settings.configuration, "-np", many, "-npfp", many)
    commands = {
        "plan": command("plan_and_preprocess", *plan, "--verify_dataset_integrity", "--clean"),
        "training": command("train", dataset, settings.planned, "0", *own, *resume),
    }
    for section, images in IMAGES.items():
        where = ("-i", str(folder / "nnUNet_raw" / DATASET / images), "-o", str(folder / f"predictions_{section}.part"))
        which = ("-d", dataset, "-c", settings.planned, "-f", "0", *own, "-npp", many, "-nps", many)
        commands[f"predict_{section}"] = command("predict", *where, *which)
    return commands
