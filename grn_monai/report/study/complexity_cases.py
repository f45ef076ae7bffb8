"""The methods of a study as their bundles' configs build them: networks for inference and one step of training.

Nothing is copied here from a bundle: networks, trainers, losses and batches come from `train.yaml` with the method's
overlays and options, so that the cost of a method is that of what its runs train. A batch is taken from the config's
own data loader, on a few made-up volumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES, NUM_CLASSES

__all__ = ["Case", "TrainingStep", "inference_network", "read_cases", "training_step", "write_cohort"]

_JOINT = "_grn_"  # in the name of the bundles that have a generator


@dataclass(frozen=True)
class Case:
    """A method of a study: its key and title, its bundle with overlays and options, and its modes of inference."""

    key: str
    title: str
    bundle: str
    overlays: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    modes: tuple[str, ...] = ("raw",)
    group: str | None = None
    printed: str | None = None


def read_cases(study: str | Path) -> tuple[list[Case], Path]:
    """The methods of a study.

    Args:
        study: a STUDY.yaml, the `study.json` that a run of it wrote, or the folder with that file.

    Returns:
        The cases in the study's order, and the folder of the bundles: what a STUDY.yaml names (by default `../bundles`
        from it), for a `study.json` `bundles` in the current folder.

    Raises:
        InputError: no such file, or no methods with a bundle in it.
    """
    import yaml

    path = Path(study)
    path = path / "study.json" if path.is_dir() else path
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # reads JSON too
    except (OSError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise InputError(path, f"no readable study ({reason})", "a STUDY.yaml or study.json", "Check it.") from error
    methods = content.get("methods") if isinstance(content, dict) else None
    if not isinstance(methods, dict) or not all(isinstance(m, dict) and m.get("bundle") for m in methods.values()):
        mend = "Give a study as docs/study.md describes it."
        raise InputError(path, "no `methods` with a `bundle` each", "methods by their names", mend)
    cases = []
    for key, method in methods.items():
        default = ["raw", "sge"] if _JOINT in method["bundle"] else ["raw"]
        cases.append(
            Case(
                str(key),
                str(method.get("title") or key),
                str(method["bundle"]),
                tuple(method.get("overlays") or ()),
                {**(content.get("options") or {}), **(method.get("options") or {})},
                tuple(method.get("modes") or default),
                method.get("group"),
                method.get("printed"),
            )
        )
    named = Path("bundles") if path.suffix == ".json" else path.parent / content.get("bundles", "../bundles")
    return cases, named


def write_cohort(folder: Path) -> Path:
    """A cohort of made-up layers for two training subjects and one each to validate and test, as `dataset.json`.

    Half of the training images have labels with `fraction: 0.5`; a volume gives 24 slices.
    """
    import nibabel as nib

    rng = np.random.default_rng(0)
    labels = np.broadcast_to(np.repeat(np.arange(NUM_CLASSES, dtype=np.uint8), 8), (12, 12, 8 * NUM_CLASSES))
    sections: dict[str, list[dict[str, str]]] = {name: [] for name in ("training", "validation", "test")}
    for i, section in enumerate(("training", "training", "validation", "test")):
        item = {"image": f"image_{i}.nii.gz", "label": f"label_{i}.nii.gz", "subject": f"s{i}", "scan": f"s{i}"}
        grey = rng.integers(0, 256, labels.shape, dtype=np.uint8)
        for key, volume in (("image", grey), ("label", np.ascontiguousarray(labels))):
            nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / item[key])
        sections[section].append(item)
    names = {str(value): name for value, name in LAYER_NAMES.items()}
    (folder / "dataset.json").write_text(json.dumps({"name": "made up", "labels": names, **sections}))
    return folder


def _parser(case: Case, bundles: Path, configs: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    from monai.bundle import ConfigParser

    from grn_monai.zoo._configs import config_file

    bundle = bundles / case.bundle
    parser = ConfigParser()
    parser.read_config([str(config_file(bundle, name)) for name in ("train", *case.overlays, *configs)])
    for key, value in {**case.options, **values, "bundle_root": str(bundle)}.items():
        parser[key.replace("::", "#")] = value
    return parser


@dataclass
class TrainingStep:
    """One training iteration, to be called again and again.

    Attributes:
        run: makes one step.
        networks: every network that takes part: the segmentor and, by method, generator, discriminator and teacher.
        optimizers: those that step.
        images: labelled and unlabelled images of the batch.
        precision: `bfloat16` or `float16` where the config trains in mixed precision, else `float32`.
    """

    run: Callable[[], Any]
    networks: list[nn.Module]
    optimizers: list[torch.optim.Optimizer]
    images: tuple[int, int]
    precision: str


def training_step(
    case: Case, bundles: Path, cohort: Path, size: int, batch: int, device: str, values: Mapping[str, Any] | None = None
) -> TrainingStep:
    """Build a method's trainer and a batch for it.

    The step is one in the middle of the planned run, where losses that ramp up or set in later take part.

    Args:
        case: the method.
        bundles: folder of the bundles.
        cohort: folder that `write_cohort` filled.
        size: side of the images in pixels.
        batch: labelled images in a batch.
        device: such as `cpu` or `cuda`.
        values: more ids of the config.

    Returns:
        The step, ready to run.
    """
    parser = _parser(
        case,
        bundles,
        (),
        {
            "dataset_dir": str(cohort),
            "output_dir": str(cohort / "run"),
            "cache_dir": None,
            "fraction": 0.5,
            "device": device,
            "slice_size": [size, size],
            "batch_size": batch,
            "num_workers": 0,
            "train#handlers": [],  # they watch and save, and are not the step
            **(values or {}),
        },
    )
    trainer = parser.get_parsed_content("train#trainer")
    loader = parser.get_parsed_content("train#dataloader")
    data = next(iter(loader))
    state = trainer.state
    state.max_epochs, state.epoch_length, state.epoch = 50, 1000, 26
    state.iteration = 25 * 1000

    def step() -> Any:
        state.iteration += 1
        state.batch = data
        return trainer._iteration(trainer, data)

    optimizers = dict(getattr(trainer, "optimizers", None) or {"optimizer": trainer.optimizer})
    mixed = str((trainer.amp_kwargs or {}).get("dtype", torch.float16)).removeprefix("torch.")
    return TrainingStep(
        step,
        _networks(trainer),
        list(optimizers.values()),
        (len(data["image"]), len(data.get("unlabeled", ()))),
        mixed if trainer.amp else "float32",
    )


def _networks(trainer: Any) -> list[nn.Module]:
    """Every network that a trainer holds, in attributes of its own or of its parts (`prepare_batch`), each once."""
    owners = [o for o in (trainer, getattr(trainer, "prepare_batch", None)) if hasattr(o, "__dict__")]
    values = [value for owner in owners for value in vars(owner).values()]
    named = getattr(trainer, "modules", None)
    if isinstance(named, Mapping):
        values += named.values()
    found = {id(v): v for v in values if isinstance(v, nn.Module) and any(True for _ in v.parameters())}
    return list(found.values())


def inference_network(case: Case, mode: str, bundles: Path, device: str) -> nn.Module:
    """The network that the bundle's evaluation runs: S(x) for `raw`, S(G(x)) for `sge`, in evaluation mode."""
    there = (bundles / case.bundle / "configs" / "no_sge.yaml").is_file()
    configs = ("evaluate", "no_sge") if mode == "raw" and there else ("evaluate",)
    network: nn.Module = _parser(case, bundles, configs, {"device": device}).get_parsed_content("network_def")
    return network.to(device).eval()
