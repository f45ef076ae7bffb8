"""A bundle as one zip file, as the MONAI Model Zoo hosts it and ``monai.bundle.load`` takes it."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from grn_monai.errors import InputError
from grn_monai.files import replacing, write_whole
from grn_monai.handlers.checkpoint import is_plain, load_checkpoint
from grn_monai.handlers.record import sha256
from grn_monai.zoo._configs import read_config, write_json
from grn_monai.zoo._contents import check_local_paths, contents
from grn_monai.zoo._page import name_configs_json, set_block
from grn_monai.zoo._scores import Scores, performance, read_scores
from grn_monai.zoo.metadata import read_metadata
from grn_monai.zoo.prepare import prepare_bundle

__all__ = ["DATA_UNKNOWN", "pack_bundle"]

DATA_UNKNOWN = "not stated by whoever packed these weights; no data come with the bundle"
"""``data_source`` of a pack with weights where nothing else is given."""


def pack_bundle(
    bundle: Path,
    out: Path = Path(),
    model: Path | None = None,
    weights: bool = True,
    evaluations: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
    as_json: bool = True,
    data_source: str | None = None,
) -> dict[str, Any]:
    """Pack a bundle as ``NAME_vVERSION.zip``; equal content gives equal bytes (of weights: with one release of torch).

    The zip holds one folder ``NAME``: the bundle with the options of the training as its defaults, as
    ``prepare_bundle`` makes it, and the weights as plain state dicts, which MONAI loads without being told a key.

    Args:
        bundle: folder of the bundle; its name becomes that of the zip.
        out: folder to write to, made if missing.
        model: ``RUN/models/model.pt`` of a training; default: the bundle's own ``models/model.pt``.
        weights: False packs the bundle without weights.
        evaluations: folders of evaluations of these weights; they become ``eval_metrics`` and the page's table.
            Without any a pack with weights has none: those in the bundle were measured with other weights.
        options: as in ``prepare_bundle``.
        as_json: configs as JSON (without their comments) and the page to match: ``monai.bundle.load`` builds the
            network from such alone. False: as they are in the bundle.
        data_source: what ``metadata.json`` says of the data; default with weights: that nothing was stated.

    Returns:
        what ``prepare_bundle`` returns, and ``file``, ``version``, ``bytes``, ``largest`` (bytes of the largest
        file in it), ``entries``, ``left_out`` (files of the bundle's folders that a pack does not take) and
        ``eval_metrics``.

    Raises:
        InputError: a file is missing, a link or tells a path of this machine, there are no weights (or they do not
            fit), an evaluation is not theirs, the metadata breaks the schema, or the folder cannot be written to.
    """
    bundle = Path(bundle).resolve()
    own = bundle / "models" / "model.pt"
    if weights and model is None:
        model = own if own.is_file() else None
        if model is None:
            mend = "Give --model RUN/models/model.pt, or --no-weights for a pack without weights."
            raise InputError(bundle, "no models/model.pt", "trained weights", mend)
    if not weights and (model is not None or evaluations or data_source is not None):
        found = "weights, or their evaluation or data, given and refused"
        raise InputError(bundle, found, "one of both", "Leave out one of the two.")
    taken, left = contents(bundle)
    if not as_json and any(n.startswith("configs/") and n.endswith(".json") for n in taken if "metadata" not in n):
        mend = "Pack it without --yaml, or the bundle that it was made from."
        raise InputError(bundle, "configs as JSON already", "YAML to pack as such", mend)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / bundle.name
        record = prepare_bundle(bundle, folder, model, options)
        check_local_paths(folder, taken)
        file = folder / "configs" / "metadata.json"
        metadata = read_metadata(file)
        if model is not None:
            digests = _make_plain(folder, model.parent, record["weights"])
            scores = [read_scores(Path(one), digests, metadata["name"]) for one in evaluations]
            metadata["eval_metrics"] = _joined(scores, evaluations)
            metadata["data_source"] = DATA_UNKNOWN if data_source is None else data_source
            set_block(folder / "docs" / "README.md", "performance", performance(scores))
        write_json(file, metadata)
        if as_json:
            taken = _to_json(folder, taken)
        target = Path(out) / f"{bundle.name}_v{read_metadata(file)['version']}.zip"
        names = sorted([*taken, *(f"models/{name}" for name in record["weights"])])
        _zip(folder, names, target)
        largest = max((folder / name).stat().st_size for name in names)
    return {
        **{k: v for k, v in record.items() if k != "target"},
        "file": str(target),
        "version": metadata["version"],
        "bytes": target.stat().st_size,
        "largest": largest,
        "entries": [f"{bundle.name}/{name}" for name in names],
        "left_out": left,
        "eval_metrics": metadata["eval_metrics"],
    }


def _make_plain(folder: Path, source: Path, names: Sequence[str]) -> dict[str, str]:
    """Write the weights of a copy as plain state dicts.

    Returns:
        names of the files by the digests of what they were and of what they are now.
    """
    digests = {}
    for name in names:
        file = folder / "models" / name
        digests[sha256(source / name)] = name
        checkpoint = load_checkpoint(file)
        state = checkpoint if is_plain(checkpoint) else checkpoint["model"]
        # Through memory: torch writes the name of a file into it, and a clone leaves behind what a view hides.
        content = io.BytesIO()
        torch.save({key: value.clone() for key, value in state.items()}, content)
        write_whole(file, content.getvalue())
        digests[sha256(file)] = name
    return digests


def _joined(scores: Sequence[Scores], evaluations: Sequence[Path]) -> dict[str, float]:
    """The metrics of all evaluations; two that say the same differently are refused."""
    metrics: dict[str, float] = {}
    for one, place in zip(scores, evaluations, strict=True):
        twice = metrics.keys() & one.metrics.keys()
        if twice:
            mend = "Leave out one of the evaluations."
            raise InputError(place, f"a second {sorted(twice)[0]}", "each kind of prediction once", mend)
        metrics |= one.metrics
    return metrics


def _to_json(folder: Path, names: Sequence[str]) -> list[str]:
    """Turn the YAML configs of a bundle into JSON, and their names in its page; returns the new names of the files."""
    made, stems = [], set()
    for name in names:
        path = folder / name
        if path.suffix == ".yaml":
            write_json(path.with_suffix(".json"), read_config(path))
            stems.add(path.stem)
            name = name.removesuffix(".yaml") + ".json"
        made.append(name)
    name_configs_json(folder / "docs" / "README.md", stems)
    return made


def _zip(folder: Path, names: Sequence[str], target: Path) -> None:
    """Pack files under the folder's name: with one time and one mode for all, and stored, since zlibs differ."""
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, (folder / name).read_bytes())
