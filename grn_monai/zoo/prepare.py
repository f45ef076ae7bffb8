"""A copy of a bundle with trained weights in it, and the options of their training as its defaults."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from grn_monai.errors import InputError
from grn_monai.handlers.checkpoint import is_plain, load_checkpoint, load_model
from grn_monai.options import flag
from grn_monai.zoo._configs import config_file, model_options, read_config, set_values
from grn_monai.zoo._labels import follow_labels
from grn_monai.zoo._overlays import merge_overlays

__all__ = ["CONFIGS", "SHAPING", "prepare_bundle"]

CONFIGS = ("train", "inference")
"""The configs whose defaults follow the training; the others are overlays of them."""
SHAPING = ("slice_size", "depth_axis", "depth_reversed", "base_channels", "spacing", "pixel_mm", "hu_window")
"""Ids, where a config has them, without which weights fit in silence or answer for scans of another orientation."""
_ALWAYS = frozenset({*SHAPING, "labels", "out_channels", "spatial_dims", "channels", "patch_size"})
"""Ids that a copy has as its weights were trained, also where overlays set them."""
RECORD = "run.json"
_PARTS = ("configs", "docs", "LICENSE")
_RUN_ONLY = frozenset(
    {"imports", "bundle_root", "dataset_dir", "split", "output_dir", "ckpt_dir", "ckpt_path", "cache_dir", "device",
     "fraction", "seed", "epochs", "resume", "num_workers", "compile", "amp", "amp_kwargs", "initialize", "finalize",
     "training", "run"}
)  # fmt: skip
"""Ids that say where, on what and for how long a run was, not what its model is."""


def prepare_bundle(
    bundle: Path,
    target: Path,
    model: Path | None = None,
    options: Mapping[str, Any] | None = None,
    overlays: bool = False,
) -> dict[str, Any]:
    """Copy a bundle, put trained weights into it and make the options of their training its defaults.

    A model that was trained on slices of 128 × 128 has to be used on such: the ids of ``train.yaml`` and
    ``inference.yaml`` that shape network and data are set as the training had them, as told by the ``run.json`` of
    the run, or else by the checkpoint itself. Comments stay. Where an overlay of the bundle made the training another
    one (another trainer), the copy's ``train.yaml`` keeps its own values of the ids that overlays have: trained on with
    the same overlay, it is the same training.

    Args:
        bundle: folder of a bundle (``configs``, ``docs``, ``LICENSE``); its own ``models`` are left behind.
        target: the folder to make; it appears whole or not at all.
        model: ``RUN/models/model.pt``; ``model_raw.pt`` beside it comes along. None: no weights.
        options: further top-level ids to set, in whichever of the two configs has them; they come before the run's.
        overlays: where an overlay of the bundle defined the network (``grn_plus.yaml``, ``network_NAME.yaml``), put it
            into the copy's ``train.yaml``, and the one for inference (``sge.yaml``) into its ``inference.yaml``.
            False refuses such weights.

    Returns:
        ``bundle`` (its name), ``target``, ``weights`` (names of files), ``options_from`` (the file that told the
        options of the training, or None), ``untold`` (ids of ``SHAPING`` in the configs that neither it nor
        ``options`` told), ``set`` (by config: id and new value, where it differs from before) and ``overlays`` (config
        to the overlay that was put into it).

    Raises:
        InputError: ``target`` exists, ``bundle`` is no bundle, an option is in neither config, or the weights are
            missing, damaged or those of another network or bundle.
    """
    bundle, target = Path(bundle), Path(target)
    for name in CONFIGS:
        config_file(bundle, name)
    if not (bundle / "configs" / "metadata.json").is_file():
        mend = "Give such as bundles/us_layers_grn_plus."
        raise InputError(bundle, "no configs/metadata.json", "the folder of a bundle", mend)
    if target.exists() or target.is_symlink():
        raise InputError(target, "something there already", "a new folder", "Remove it, or choose another name.")
    weights = _weights(Path(model)) if model is not None else []
    source, config = _trained_options(bundle, weights[0]) if weights else (None, {})
    trained = {k: v for k, v in config.items() if k not in _RUN_ONLY}
    temporary = target.with_name(f".{uuid.uuid4().hex}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for part in _PARTS:
            if (bundle / part).is_dir():
                shutil.copytree(bundle / part, temporary / part, ignore=shutil.ignore_patterns(".*", "__pycache__"))
            elif (bundle / part).is_file():
                shutil.copy(bundle / part, temporary / part)
        (temporary / "models").mkdir()
        for file in weights:
            shutil.copy(file, temporary / "models" / file.name)
        merged = merge_overlays(temporary, config) if overlays else {}
        if source is not None and source.name == RECORD:
            _check_networks(source, config, read_config(config_file(temporary, "train")))
        changed = _set_options(temporary, bundle, trained, options or {})
        follow_labels(temporary)
        for file in weights:
            _check_weights(temporary, file)
        os.rename(temporary, target)
    except OSError as error:
        mend = "Free space on the disk, or choose another folder."
        raise InputError(target, f"that writing fails ({error})", "a writable folder with free space", mend) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    there = {key for name in CONFIGS for key in read_config(config_file(target, name))}
    return {
        "bundle": bundle.resolve().name,
        "target": str(target),
        "weights": [file.name for file in weights],
        "options_from": None if source is None else str(source),
        "untold": [k for k in SHAPING if weights and k in there and k not in trained and k not in (options or {})],
        "set": changed,
        "overlays": merged,
    }


def _weights(model: Path) -> list[Path]:
    """The checkpoint, as ``model.pt`` whatever it is, and the one of S alone that was saved beside it."""
    if model.name != "model.pt":
        raise InputError(model, f"the name {model.name}", "RUN/models/model.pt of a training", "Give that file.")
    raw = model.with_name("model_raw.pt")
    return [model, *([raw] if raw.is_file() else [])]


def _trained_options(bundle: Path, model: Path) -> tuple[Path | None, dict[str, Any]]:
    """What told how a model was trained (None: nothing did), and the top-level ids it tells."""
    checkpoint = load_checkpoint(model)
    record = model.resolve().parent.parent / RECORD
    if not record.is_file():
        try:
            told = {} if is_plain(checkpoint) else dict(checkpoint.get("options", {}))
            return (model if told else None), {k: yaml.safe_load(v) for k, v in told.items()}
        except (AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
            raise InputError(model, "unreadable options", "a checkpoint of a training", "Train again.") from error
    try:
        config = dict(json.loads(record.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        mend = "Restore it, or remove it: then the checkpoint itself tells what it was trained with."
        raise InputError(record, f"no record of a training ({type(error).__name__})", "its config", mend) from error
    mine = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8")).get("name")
    theirs = (config.get("_meta_") or {}).get("name")
    if theirs is not None and theirs != mine:
        mend = "Give the bundle that the model was trained with."
        raise InputError(record, f"a training of the bundle {theirs!r}", repr(mine), mend)
    return record, config


def _check_networks(record: Path, config: Mapping[str, Any], bundle: Mapping[str, Any]) -> None:
    """Refuse a run whose networks were defined in another way: weights of the same shapes would fit in silence."""
    for name in bundle:
        if name.endswith("_def") and name in config and config[name] != bundle[name]:
            mend = "Put the run's definition into the configs of a copy of the bundle, and give that copy."
            raise InputError(record, f"{name} {json.dumps(config[name])}", "that of the bundle's train config", mend)


def _of_overlays(folder: Path, trained: Mapping[str, Any]) -> set[str]:
    """Ids that a training has from overlays, where it had one that changes more than options; else none.

    The copy's train config has not the parts of the overlay (another trainer, a second network): with the overlay's
    options alone it would be neither of both.
    """
    before = read_config(config_file(folder, "train"))
    if all(trained[k] == v for k, v in before.items() if isinstance(v, dict) and k in trained):
        return set()
    files = [f for f in sorted((folder / "configs").glob("*.*")) if f.suffix in (".yaml", ".json")]
    result: set[str] = set()
    for file in files:
        if file.stem not in (*CONFIGS, "evaluate", "metadata"):
            ids = {name for name in read_config(file) if name.isidentifier()} - _RUN_ONLY
            # No record says which overlays were used: those whose ids the run all has.
            result |= ids if ids <= set(trained) else set()
    return result


def _set_options(
    folder: Path, bundle: Path, trained: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Set what differs in both configs; returns what was set in each."""
    changed: dict[str, dict[str, Any]] = {}
    unknown = set(options)
    for stem in CONFIGS:
        file = config_file(folder, stem)
        before = read_config(file)
        unknown -= set(before)
        left_out = _of_overlays(folder, trained) - _ALWAYS if stem == "train" else set()
        # The run's ids over several lines are parts (loss, optimizer, train, …), not options; nor are expressions,
        # which may name parts of an overlay; the set of labels does not.
        wanted = {
            k: v
            for k, v in trained.items()
            if k in before
            and k not in left_out
            and not isinstance(v, dict)
            and (k == "labels" or not str(v).startswith(("$", "@")))
        } | {k: v for k, v in options.items() if k in before}
        # A switch reaches a run from its command line as a text.
        wanted = {k: flag(v) if isinstance(before[k], bool) else v for k, v in wanted.items()}
        changed[file.name] = {k: v for k, v in wanted.items() if v != before[k]}
        set_values(file, changed[file.name])
    if unknown:
        found = f"no id {sorted(unknown)[0]!r} in the configs {' and '.join(CONFIGS)}"
        raise InputError(bundle, found, "ids there", "Correct it.")
    return changed


def _check_weights(folder: Path, file: Path) -> None:
    """Fill the network of the copy's inference; a weight that does not fit is refused."""
    parser = ConfigParser()
    parser.read_config(str(config_file(folder, "inference")))
    load_model(file, parser.get_parsed_content("network_def"), options=model_options(parser))
