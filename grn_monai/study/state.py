"""What has been done of a run, read from what its bundle left behind."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError, listed
from grn_monai.study.commands import evaluation_options
from grn_monai.study.plan import Plan, Run
from grn_monai.study.status import read_json, read_status

__all__ = ["cohort_digest", "cohort_digests", "differences", "epoch", "evaluated", "seconds", "todo", "trained"]

NEUTRAL = {
    "output_dir", "dataset_dir", "cache_dir", "ckpt_dir", "bundle_root", "device", "num_workers", "resume", "compile",
    "epochs", "patience", "infer_batch_size", "backend",
}  # fmt: skip
"""Ids that may differ without its being another run; epochs and patience are looked at by themselves."""


_CONFIG = re.compile(r"[^\s'\",\[\]]+\.yaml")


def cohort_digest(cohort: Path, split: str = "dataset.json") -> str | None:
    """A digest of a cohort that does not depend on where it lies, None where there is none.

    Of a simulated one the settings, else the list of scans with the sizes of their files.
    """
    settings, file = read_json(cohort / "simulation.json").get("settings"), cohort / split
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    if settings:
        digest.update(json.dumps(settings, sort_keys=True).encode())
    if not settings or split != "dataset.json":
        digest.update(file.read_bytes())
    for section in () if settings else ("training", "validation", "test", "unlabeled"):
        for item in read_json(file).get(section, []):
            for key in ("image", "label"):
                path = cohort / str(item.get(key))
                digest.update(f"{key} {path.stat().st_size if path.is_file() else None} ".encode())
    return digest.hexdigest()[:16]


def cohort_digests(plan: Plan, runs: Iterable[Run]) -> dict[str, str | None]:
    """The digest of the cohort for each `split` of the runs, so that it does not depend on which runs are chosen."""
    return {split: cohort_digest(plan.cohort, split) for split in dict.fromkeys(run.split for run in runs)}


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        return [leaf for child in (value.values() if isinstance(value, dict) else value) for leaf in _leaves(child)]
    return [value]


def _plain(value: Any) -> bool:
    """Whether a value of a config holds no reference and no expression."""
    return not any(isinstance(leaf, str) and leaf[:1] in ("@", "$", "%") for leaf in _leaves(value))


def _equal(a: Any, b: Any) -> bool:
    """Equal as `monai.bundle` takes them: a switch may be a text, a number too, `@a#b` is recorded as `@a::b`."""
    if isinstance(a, bool) or isinstance(b, bool):
        return str(a).lower() == str(b).lower()
    return a == b or str(a).replace("#", "::") == str(b).replace("#", "::")


def _at(config: Any, key: str) -> Any:
    """The value of `a#b#0` in a nested config, None where there is none."""
    for part in key.replace("::", "#").split("#"):
        if isinstance(config, dict):
            config = config.get(part)
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def _settings(run: Run) -> dict[str, Any]:
    """What makes the run what it is, by id: its options, and the plain values of train.yaml and its overlays.

    Expressions are left out: they may be written anew without another result.
    """
    bundle = run.method.bundle
    base, overlaid = bundle.values(["train"]), bundle.values(run.method.overlays)
    base["train#trainer#_target_"] = _at(base, "train#trainer#_target_")
    known = bundle.ids(run.method.configs())
    options = {"fraction": run.fraction, "seed": run.seed, **{k: v for k, v in run.options.items() if k in known}}
    result: dict[str, Any] = {}
    for values in (base, overlaid, options):
        for key, value in values.items():
            bare = key.lstrip("+~").replace("::", "#")
            # What is changed here, wholly or in a part, is no longer as the file before had it.
            for old in [k for k in result if f"{k}#".startswith(f"{bare}#") or bare.startswith(f"{k}#")]:
                del result[old]
            if key[0] not in "+~_" and (values is options or _plain(value)):
                result[bare] = value
    return {k: v for k, v in result.items() if k not in NEUTRAL}


def differences(plan: Plan, run: Run, digest: str | None) -> list[str]:
    """How a training that lies in the run's folder differs from the planned one, one text each.

    A value that train.yaml got since (the record does not have it) is no difference; one of an overlay or an option is.
    """
    folder = plan.folder(run)
    record = read_json(folder / "run.json")
    config = record.get("config")
    if not isinstance(config, dict):
        return []
    asked = {*run.options, *run.method.bundle.values(run.method.overlays), "fraction", "seed"}
    found = []
    for key, value in _settings(run).items():
        was = _at(config, key)
        if not _equal(was, value) and not (was is None and key not in asked):
            found.append(f"{key} {_short(was)}, now {_short(value)}")
    configs = [Path(name).stem for name in _CONFIG.findall(_after(record.get("command"), "--config_file"))]
    if configs and configs != run.method.configs():
        found.append(f"configs {', '.join(configs)}, now {', '.join(run.method.configs())}")
    before = read_status(folder).get("cohort")
    if before and digest and before != digest:
        found.append("another cohort")
    elif not before and config.get("dataset_dir") and Path(config["dataset_dir"]).resolve() != plan.cohort:
        found.append(f"dataset_dir {config['dataset_dir']}, now {plan.cohort}")
    epochs = int(config.get("epochs") or 0)
    if epochs == run.epochs:
        if "patience" in run.options and config.get("patience") != run.options["patience"]:
            found.append(f"patience {config.get('patience')}, now {run.options['patience']}")
    elif epochs > run.epochs:
        found.append(f"epochs {epochs}, now {run.epochs}")
    elif _schedule_spans(config) and (record.get("status") == "completed" or (folder / "checkpoint.pt").is_file()):
        found.append(f"epochs {epochs}, now {run.epochs}, over which its schedule is spread")
    elif record.get("status") == "completed" and not (folder / "checkpoint.pt").is_file():
        found.append(f"epochs {epochs}, now {run.epochs}, and no checkpoint.pt to go on from")
    return found


def _schedule_spans(config: Any) -> bool:
    """Whether a checkpoint of a run with this config is refused by one of more epochs.

    It is where the `identity` of its CheckpointHandler names them: weights are ramped up over the whole run.
    """
    if isinstance(config, dict):
        identity = config.get("identity")
        return (isinstance(identity, dict) and "epochs" in identity) or any(map(_schedule_spans, config.values()))
    return isinstance(config, list) and any(map(_schedule_spans, config))


def _after(line: Any, option: str) -> str:
    """What follows an option in a command line, empty where it is not there."""
    parts = [str(part) for part in line or []]
    return parts[parts.index(option) + 1] if option in parts[:-1] else ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def trained(plan: Plan, run: Run, digest: str | None = None) -> bool:
    """Whether the training has reached its end, all epochs or an early stop.

    Raises:
        InputError: the folder holds a run of other settings.
    """
    folder = plan.folder(run)
    if other := differences(plan, run, digest):
        mend = "Give the study another `output`, delete the folder, or plan what it holds."
        raise InputError(folder, f"a run of other settings ({listed(other)})", "one of this plan", mend)
    record = read_json(folder / "run.json")
    same_epochs = (record.get("config") or {}).get("epochs") == run.epochs
    return record.get("status") == "completed" and same_epochs and any((folder / "models").glob("*.pt"))


def evaluated(plan: Plan, run: Run, section: str, mode: str) -> bool:
    """Whether an evaluation is complete, and of the weights that lie there."""
    folder = plan.evaluation(run, section, mode)
    record, metrics = read_json(folder / "run.json"), folder / "metrics.json"
    if record.get("status") != "completed" or not metrics.is_file():
        return False
    config = record.get("config") or {}
    wanted = {k: v for k, v in evaluation_options(run, mode).items() if k not in NEUTRAL} | {"section": section}
    if not all(_equal(_at(config, k), v) for k, v in wanted.items()):
        return False
    if metrics.stat().st_mtime >= (plan.folder(run) / "run.json").stat().st_mtime:
        return True
    # Copied folders have no telling times: then the weights themselves are compared.
    weights = plan.folder(run) / "models" / Path(str((record.get("resolved") or {}).get("ckpt_path"))).name
    if not weights.is_file():
        return False
    with open(weights, "rb") as file:
        return record.get("ckpt_sha256") == hashlib.file_digest(file, "sha256").hexdigest()


def todo(plan: Plan, run: Run, digest: str | None = None) -> list[str]:
    """The stages of a run that are not done yet: `training`, and the evaluations as `SECTION_MODE`.

    Raises:
        InputError: the folder holds a run of other settings.
    """
    if not trained(plan, run, digest):
        return ["training", *(f"{section}_{mode}" for section, mode in plan.evaluations(run))]
    return [f"{section}_{mode}" for section, mode in plan.evaluations(run) if not evaluated(plan, run, section, mode)]


def epoch(plan: Plan, run: Run) -> int:
    """The last epoch that a training has finished, 0 before."""
    try:
        with open(plan.folder(run) / "history.csv", newline="", encoding="utf-8") as file:
            return max((int(row["epoch"]) for row in csv.DictReader(file)), default=0)
    except (OSError, KeyError, ValueError):
        return 0


def seconds(plan: Plan, run: Run) -> float:
    """Time that training and evaluations took, in all calls, in seconds."""
    folders = [plan.folder(run), *(plan.evaluation(run, *which) for which in plan.evaluations(run))]
    total = 0.0
    for folder in folders:
        record = read_json(folder / "run.json")
        with contextlib.suppress(AttributeError, TypeError, ValueError):  # a damaged record
            total += sum(float(part.get("seconds") or 0) for part in (record, *record.get("earlier", [])))
    return total
