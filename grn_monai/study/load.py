"""A study's YAML file to its plan; everything in it is checked before anything starts."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grn_monai
from grn_monai.study.bundles import Bundle
from grn_monai.study.plan import Method, Plan, Run, fraction_name, fraction_of
from grn_monai.study.read import Place, close_names, read_yaml

__all__ = ["load_plan"]

STUDY_KEYS = (
    "name", "title", "cohort", "bundles", "output", "options", "sections", "seeds", "fractions", "methods"
)  # fmt: skip
METHOD_KEYS = (
    "title", "bundle", "overlays", "eval_overlays", "modes", "group", "printed", "needs", "options", "fractions",
    "seeds",
)  # fmt: skip
SECTIONS = ("training", "validation", "test")
MODES = ("raw", "sge")
OWN_IDS = {
    "dataset_dir", "output_dir", "cache_dir", "bundle_root", "ckpt_dir", "ckpt_path", "eval_dir", "fraction", "seed",
    "section", "sge", "resume",
}  # fmt: skip
"""Ids that the study sets by itself, run by run."""

COUNTS = {"epochs": 1, "patience": 1, "val_interval": 1, "batch_size": 1}
"""Ids that are whole numbers in every bundle, with the least that each may be."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def load_plan(file: Path, output: Path | None = None) -> Plan:
    """Read a study.

    Args:
        file: the YAML file; paths in it are relative to its folder.
        output: another folder for what the study leaves.

    Raises:
        InputError: naming the file and the key.
    """
    place, base = Place(file), file.resolve().parent
    content = place.mapping(read_yaml(file), STUDY_KEYS)
    for key in ("cohort", "methods"):
        if not content.get(key):
            raise place.at(key).error("nothing", f"the study's {key}", "Add it to the file.")
    name = _folder_name(content.get("name", file.stem), place.at("name"))
    cohort, simulate = _cohort(content["cohort"], base, place.at("cohort"))
    sections = place.at("sections").names(content.get("sections", ["test"]), "section")
    for section in sections:
        _one_of(section, SECTIONS, place.at("sections"))
    if not sections:
        raise place.at("sections").error("nothing", "at least one section that is scored")
    options = _options(content.get("options"), place.at("options"))
    fractions = _fractions(content.get("fractions", [1.0]), place.at("fractions"))
    seeds = _seeds(content.get("seeds", [0]), place.at("seeds"))
    bundles = _bundles(content.get("bundles"), base, place.at("bundles"))

    grid: list[tuple[Method, dict[float, dict[str, Any]], list[int]]] = []
    entries = place.at("methods").mapping(content["methods"])
    for key, entry in entries.items():
        here = place.at("methods").at(key)
        entry = here.mapping(entry, METHOD_KEYS)
        method = _method(_folder_name(key, here), entry, bundles, here)
        chosen = _subset(entry, "fractions", fractions, here, _fractions) if "fractions" in entry else {}
        own_seeds = _subset(entry, "seeds", seeds, here, _seeds) if "seeds" in entry else seeds
        per_fraction: dict[float, dict[str, Any]] = {}
        for fraction in fractions:
            if "fractions" not in entry or fraction in chosen:
                levels = (
                    (options, place.at("options")),
                    (fractions[fraction], place.at("fractions").at(fraction)),
                    (method.options, here.at("options")),
                    (chosen.get(fraction, {}), here.at("fractions").at(fraction)),
                )
                per_fraction[fraction] = _merged(method, levels)
        grid.append((method, per_fraction, list(own_seeds)))

    _check_titles([method for method, _, _ in grid], place.at("methods"))
    runs = tuple(
        Run(method, fraction, seed, per_fraction[fraction])
        for seed in seeds
        for fraction in fractions
        for method, per_fraction, own_seeds in grid
        if fraction in per_fraction and seed in own_seeds
    )
    if not runs:
        raise place.at("methods").error("no run at all", "a grid of methods, fractions and seeds")
    for split in dict.fromkeys(run.split for run in runs) if simulate is None else ():
        _check_sections(cohort, split, sections, place)
    return Plan(
        file=file,
        name=name,
        title=_line(content.get("title", name), place.at("title")),
        output=(output or base / place.at("output").text(content.get("output", f"../runs/{name}"))).resolve(),
        cohort=cohort,
        simulate=simulate,
        sections=sections,
        methods=tuple(method for method, _, _ in grid),
        fractions=tuple(fractions),
        seeds=tuple(seeds),
        runs=runs,
    )


def _folder_name(value: Any, place: Place) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise place.error(f"the name {value!r}", "letters, digits, `_`, `-` and `.`: it names a folder")
    return value


def _line(value: Any, place: Place) -> str:
    """A text that stands in one cell of a table."""
    text = place.text(value).strip()
    if any(unicodedata.category(sign) == "Cc" for sign in text):
        raise place.error(f"{text!r}, with control characters", "one line of text")
    return text


def _check_titles(methods: list[Method], place: Place) -> None:
    """Refuse two methods whose rows no reader could tell apart."""
    first: dict[str, str] = {}
    for method in methods:
        title = " ".join(method.title.split())
        if title in first:
            found = f"{title!r}, which is the title of {first[title]} too"
            raise place.at(method.key).at("title").error(found, "a title of its own")
        first[title] = method.key


def _one_of(value: Any, known: tuple[str, ...], place: Place) -> None:
    if value not in known:
        raise place.error(repr(value), " or ".join(known), close_names(value, known))


def _bundles(value: Any, base: Path, place: Place) -> Path:
    if value is None:
        beside = base / "../bundles"
        folder = beside if beside.is_dir() else Path(grn_monai.__file__).parents[1] / "bundles"
    else:
        folder = base / place.text(value)
    if not folder.is_dir():
        raise place.error(f"no folder {folder}", "the folder of the bundles", "Check the path.")
    return folder.resolve()


def _cohort(value: Any, base: Path, place: Place) -> tuple[Path, tuple[str, ...] | None]:
    """Folder, and the options of the simulation if there is one."""
    entry = {"path": value} if isinstance(value, str) else place.mapping(value, ("path", "simulate"))
    path = (base / place.at("path").text(entry.get("path"))).resolve()
    if entry.get("simulate") is None:
        if not path.is_dir():
            mend = 'Check the path; `simulate: "…"` beside `path` lets the study simulate it.'
            raise place.error(f"no folder {path}", "the folder of a cohort", mend)
        return path, None
    text = entry["simulate"]
    try:
        options = tuple(shlex.split(text if isinstance(text, str) else place.at("simulate").text(text)))
    except ValueError as error:
        raise place.at("simulate").error(f"{text!r} ({error})", "options of `python -m data_prep simulate`") from error
    if any(part == "--out" or part.startswith("--out=") for part in options):
        raise place.at("simulate").error("--out", "options without it", "Give the folder as `path`.")
    return path, options


def _check_sections(cohort: Path, split: str, sections: tuple[str, ...], place: Place) -> None:
    file = cohort / split
    if not file.is_file():
        mend = "`python -m data_prep convert` or `simulate` makes a cohort."
        raise place.at("cohort").error(f"{cohort} without {file.name}", "a cohort", mend)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        empty = [section for section in ("training", "validation", *sections) if not content.get(section)]
    except (ValueError, AttributeError) as error:
        raise place.at("cohort").error(f"{file}, which cannot be read", "a cohort's JSON file") from error
    if empty:
        raise place.at("cohort").error(f"no scans in section {empty[0]!r} of {file}", "at least one scan")


def _options(value: Any, place: Place) -> dict[str, Any]:
    options = place.mapping(value)
    for key in options:
        if not isinstance(key, str) or not key.isidentifier():
            raise place.at(key).error("no id", "a top-level id of a bundle's configs, such as epochs")
        if key in OWN_IDS:
            raise place.at(key).error("an id that the study sets by itself", "another id", "Remove it.")
        value, least = options[key], COUNTS.get(key)
        if least is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise place.at(key).error(repr(value), f"a whole number from {least}")
    return options


def _fractions(value: Any, place: Place) -> dict[float, dict[str, Any]]:
    """Fractions and the ids for their runs; a list gives no ids."""
    listing = not isinstance(value, Mapping)
    entries = dict.fromkeys(place.sequence(value, "fraction")) if listing else place.mapping(value)
    if not entries:
        raise place.error("nothing", "at least one fraction")
    result: dict[float, dict[str, Any]] = {}
    for key, ids in entries.items():
        if isinstance(key, bool) or not isinstance(key, int | float) or not 0 < key <= 1:
            raise place.error(f"{key!r}", "a share of the labels above 0 and at most 1", "5 % is written 0.05.")
        if fraction_of(name := fraction_name(key)) != float(key):  # two of them could have one folder
            expected = "a share whose percentage has at most six digits, such as 0.333333"
            raise place.error(f"{key!r}, whose folder would be {name}", expected, "Round it.")
        result[float(key)] = _options(ids, place.at(key))
    return result


def _seeds(value: Any, place: Place) -> dict[int, None]:
    seeds = place.sequence(value, "seed")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise place.error(repr(seed), "whole numbers from 0")
    return dict.fromkeys(seeds)


def _subset(entry: Mapping[str, Any], key: str, whole: Mapping[Any, Any], here: Place, read: Any) -> Any:
    """What a method takes of the study's fractions or seeds."""
    chosen = read(entry[key], here.at(key))
    for item in chosen:
        if item not in whole:
            found = f"{item!r}, which the study does not have"
            raise here.at(key).error(found, f"one of {list(whole)}", f"Add it to the study's {key}.")
    return chosen


def _method(key: str, entry: Mapping[str, Any], bundles: Path, here: Place) -> Method:
    if "bundle" not in entry:
        raise here.at("bundle").error("nothing", "the name of a bundle", "Add it to the file.")
    bundle = Bundle(bundles / here.at("bundle").text(entry["bundle"]), here.at("bundle"))
    overlays = here.at("overlays").names(entry.get("overlays"), "overlay")
    bundle.check_overlays(overlays, here.at("overlays"))
    if "eval_overlays" in entry:
        eval_overlays = here.at("eval_overlays").names(entry["eval_overlays"], "overlay")
        bundle.check_overlays(eval_overlays, here.at("eval_overlays"))
    else:  # the others change what is trained, not what is predicted
        eval_overlays = tuple(name for name in overlays if name.startswith("network_"))
    known = MODES if bundle.has_sge else MODES[:1]
    modes = here.at("modes").names(entry.get("modes", list(known)), "mode")
    for mode in modes:
        _one_of(mode, known, here.at("modes"))
    if not modes:
        raise here.at("modes").error("nothing", "at least one mode")
    group = "grn" if bundle.has_sge else "semi-supervised" if "semi" in bundle.name else "supervised"
    return Method(
        key=key,
        title=_line(entry.get("title", key), here.at("title")),
        bundle=bundle,
        overlays=overlays,
        eval_overlays=eval_overlays,
        modes=modes,
        group=_line(entry.get("group", group), here.at("group")),
        printed=_line(entry.get("printed", key), here.at("printed")),
        needs=here.at("needs").names(entry.get("needs"), "package"),
        options=_options(entry.get("options"), here.at("options")),
    )


def _merged(method: Method, levels: tuple[tuple[dict[str, Any], Place], ...]) -> dict[str, Any]:
    """The options of a run, the later over the earlier; the bundle has to know every one."""
    ids = method.bundle.ids(method.configs())
    for mode in method.modes:
        ids |= method.bundle.ids(method.configs(mode))
    result: dict[str, Any] = {}
    for options, place in levels:
        for key in options:
            if key not in ids:
                found = f"an id that {method.bundle.name} (method {method.key}) does not have"
                near = close_names(key, sorted(ids - OWN_IDS))
                mend = f"{near} What only some methods have belongs to their own options."
                raise place.at(key).error(found, "a top-level id of its configs", mend)
        result |= options
    if "epochs" in result and "patience" in ids:
        result.setdefault("patience", result["epochs"])
    return result
