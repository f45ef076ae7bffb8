"""A bundle as one zip file, as the MONAI Model Zoo hosts it and ``monai.bundle.download`` takes it."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.files import replacing, write_whole
from grn_monai.zoo._yaml import read_yaml
from grn_monai.zoo.metadata import read_metadata
from grn_monai.zoo.prepare import prepare_bundle

__all__ = ["FILES", "pack_bundle"]

FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.yaml",
    "configs/evaluate.yaml",
    "configs/inference.yaml",
    "configs/multi_gpu_train.yaml",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)
"""What a bundle of the zoo holds beside its weights."""


def pack_bundle(
    bundle: Path,
    out: Path = Path(),
    model: Path | None = None,
    weights: bool = True,
    evaluation: Path | None = None,
    options: Mapping[str, Any] | None = None,
    as_json: bool = False,
) -> dict[str, Any]:
    """Pack a bundle as ``NAME_vVERSION.zip``; equal content gives equal bytes.

    The zip holds one folder ``NAME``: a copy of the bundle with trained weights, as ``prepare_bundle`` makes it.

    Args:
        bundle: folder of the bundle; its name becomes that of the zip.
        out: folder to write to, made if missing.
        model: ``RUN/models/model.pt`` of a training; default: the bundle's own ``models/model.pt``.
        weights: False packs the bundle without weights.
        evaluation: folder of the evaluation of ``model``; its ``metrics.json`` becomes ``eval_metrics``. Without it a
            pack with ``model`` has none, since those in the bundle were measured with other weights.
        options: as in ``prepare_bundle``.
        as_json: configs as JSON (without their comments) and the page to match: ``monai.bundle.load`` builds the
            network by itself from ``inference.json`` alone.

    Returns:
        what ``prepare_bundle`` returns, and ``file``, ``version``, ``bytes``, ``largest`` (bytes of the largest
        file in it), ``entries`` and ``eval_metrics``.

    Raises:
        InputError: a file is missing, there are no weights (or they do not fit), the metadata breaks the schema, or
            the folder cannot be written to.
    """
    bundle = Path(bundle).resolve()
    own = bundle / "models" / "model.pt"
    if weights and model is None:
        model = own if own.is_file() else None
        if model is None:
            mend = "Give --model RUN/models/model.pt, or --no-weights for a pack without weights."
            raise InputError(bundle, "no models/model.pt", "trained weights", mend)
    if not weights and (model is not None or evaluation is not None):
        mend = "Leave out one of the two."
        raise InputError(bundle, "weights, or their evaluation, given and refused", "one of both", mend)
    for name in FILES:
        if not (bundle / name).is_file():
            raise InputError(bundle, f"no {name}", "a bundle with all files of the zoo's", "Add the file.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / bundle.name
        record = prepare_bundle(bundle, folder, model, options)
        file = folder / "configs" / "metadata.json"
        metadata = read_metadata(file)
        if evaluation is not None:
            metadata["eval_metrics"] = read_scores(evaluation, model)
        elif model is not None and model.resolve() != own:
            metadata["eval_metrics"] = {}
        write_whole(file, json.dumps(metadata, indent=4, ensure_ascii=False) + "\n")
        if as_json:
            _to_json(folder)
        target = Path(out) / f"{bundle.name}_v{read_metadata(file)['version']}.zip"
        entries = _zip(folder, target)
        largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        **{k: v for k, v in record.items() if k != "target"},
        "file": str(target),
        "version": metadata["version"],
        "bytes": target.stat().st_size,
        "largest": largest,
        "entries": entries,
        "eval_metrics": metadata["eval_metrics"],
    }


def _to_json(folder: Path) -> None:
    """Turn every YAML config of a bundle into JSON, and its name in the bundle's page."""
    for path in sorted((folder / "configs").glob("*.yaml")):
        write_whole(path.with_suffix(".json"), json.dumps(read_yaml(path), indent=4, ensure_ascii=False) + "\n")
        path.unlink()
    page = folder / "docs" / "README.md"
    write_whole(page, re.sub(r"(configs/\w+)\.yaml", r"\1.json", page.read_text(encoding="utf-8")))


def read_scores(evaluation: Path, model: Path | None = None) -> dict[str, float]:
    """Mean Dice by kind of prediction (slice, fused volume, decoded volume) of an evaluation, to four digits.

    Args:
        evaluation: the folder that it wrote.
        model: the checkpoint that it has to be of, where its ``run.json`` tells one that is still there.

    Raises:
        InputError: the folder holds no ``metrics.json`` of an evaluation, or that of other weights.
    """
    file, record = Path(evaluation) / "metrics.json", Path(evaluation) / "run.json"
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))
        means = {f"mean_dice_{k}": round(float(scores[k]["mean"]), 4) for k in ("slice", "volume", "decoded")}
        known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        scored = (known.get("resolved") or {}).get("ckpt_path")
    except (OSError, ValueError, KeyError, TypeError) as error:
        mend = "Give the folder that the bundle's evaluate.yaml wrote for this model."
        raise InputError(file, f"no scores ({type(error).__name__})", "scores of an evaluation", mend) from error
    if model is not None and scored and Path(scored).is_file() and not Path(scored).samefile(model):
        raise InputError(record, f"the evaluation of {scored}", f"that of {model}", "Give the evaluation of the model.")
    return means


def _zip(folder: Path, target: Path) -> list[str]:
    """Pack a folder under its name: sorted, and with one time and one mode for all, so that no run differs."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [f"{folder.name}/{path.relative_to(folder).as_posix()}" for path in files]
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in zip(files, names, strict=True):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return names
