"""Lays out the folder that MONAI Label serves: the app with its bundles, and the studies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from grn_monai.data.checks import label_mapping
from grn_monai.data.cohort import SECTIONS, load_cohort
from grn_monai.data.names import check_file_names, item_names
from grn_monai.data.volume import read_volume, scan_name
from grn_monai.errors import InputError
from grn_monai.files import file_stamps, make_folder, replacing, write_whole
from grn_monai.monailabel.names import cohort_labels, misfit, shared_names
from grn_monai.zoo._configs import config_file, read_config
from grn_monai.zoo._labels import is_single
from grn_monai.zoo.prepare import prepare_bundle

__all__ = ["Layout", "find_runs", "lay_out", "only_one", "read_notes"]

RECORD = "label.json"
"""In a bundle of the app: where its weights came from."""
NOTES = "layout.json"
"""In the app's folder: what the app cannot know by itself."""
MAIN = '''"""MONAI Label app; everything is in the installed package."""

from grn_monai.monailabel.app import LayersApp

__all__ = ["LayersApp"]
'''


@dataclass
class Layout:
    """What was laid out.

    Attributes:
        app: folder for ``--app``.
        studies: folder or URL for ``--studies``.
        served: bundle to the run whose weights it has.
        kept: bundles whose folder was there already and was left as it is, with what was trained in it since.
        newer: of these, those with another training than the one they came from, and its folder.
        not_served: bundle to the reason.
        images: number of scans in a folder that was made here, or None.
        labelled: number of them whose labels came along.
    """

    app: Path
    studies: str
    served: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    newer: dict[str, str] = field(default_factory=dict)
    not_served: dict[str, str] = field(default_factory=dict)
    images: int | None = None
    labelled: int = 0


@contextlib.contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Sees that no two servers, and no server and a layout, work in one folder.

    Raises:
        InputError: another process does.
    """
    from filelock import FileLock, Timeout

    make_folder(out)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        mend = "Stop the other server, or give another --out."
        raise InputError(out, "a folder that another server works in", "one of its own", mend) from error
    try:
        yield
    finally:
        lock.release()


def find_runs(runs: Path, bundles: Sequence[Path], skip: Path | None = None) -> dict[str, Path]:
    """The newest finished training of each bundle.

    Args:
        runs: folder that is searched at any depth for ``run.json`` beside ``models/model.pt``.
        bundles: folders of bundles; a run belongs to the one whose metadata has the run's name.
        skip: folder to leave out: what was laid out before, whose bundles hold such files after a training there.

    Returns:
        bundle name to the run's folder, for those that have one.
    """
    names = {json.loads((b / "configs" / "metadata.json").read_text())["name"]: b.resolve().name for b in bundles}
    found: dict[str, tuple[int, Path]] = {}
    for record in runs.rglob("run.json") if runs.is_dir() else ():
        if skip is not None and record.resolve().is_relative_to(skip.resolve()):
            continue
        model = record.parent / "models" / "model.pt"
        try:
            content = json.loads(record.read_text())
            name = names[content["config"]["_meta_"]["name"]]
            time = model.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another command's record, or a training that has no model yet
        in_an_app = (record.parent / RECORD).is_file()
        if content.get("status") == "completed" and not in_an_app and (name not in found or time > found[name][0]):
            found[name] = (time, record.parent)
    return {name: run for name, (_, run) in found.items()}


def lay_out(
    out: Path,
    bundles: Sequence[Path],
    runs: Mapping[str, Path],
    studies: str,
    sections: Sequence[str] = ("training", "unlabeled"),
    fresh: bool = False,
    models: Sequence[str] = (),
    modalities: Sequence[str] = (),
) -> Layout:
    """Make, or bring up to date, what a server needs.

    A bundle that was trained in the app keeps those weights, whatever other trainings there are now; ``fresh`` makes
    it anew. Nothing is ever deleted: ``fresh`` moves what was there to ``before-N``.

    Args:
        out: folder to make: ``app/`` and, for a cohort, ``studies/``.
        bundles: folders of bundles.
        runs: bundle name to the folder of its training.
        studies: a cohort folder (its scans are copied, so that MONAI Label's own files, saved labels and deletions
            stay out of it), any other folder (served in place, as MONAI Label does), or the URL of a DICOM server.
        sections: the cohort's sections to serve. Scans that will be tested are better left out: whoever labels them
            trains on them.
        fresh: begin anew; bundles, scores, studies and labels of an earlier layout go to ``before-N``.
        models: bundles that will be served; empty: all that fit the scans.
        modalities: of the scans, such as ``["CT"]``: bundles for others are not served; empty: the cohort tells, if
            anything does.

    Returns:
        what is there now.

    Raises:
        InputError: no bundle has weights, those to serve label differently, the studies are at fault, or something
            cannot be written.
    """
    for section in sections:
        if section not in SECTIONS:
            raise InputError("sections", repr(section), f"some of {', '.join(SECTIONS)}", "Correct the option.")
    app = out / "app"
    if "://" not in studies and Path(studies).resolve().is_relative_to(out.resolve()):
        mend = "Give the cohort, or another --out."
        raise InputError(studies, f"studies inside {out}, the folder of the app", "scans somewhere else", mend)
    make_folder(out)
    if (app / "model").is_dir() and not (app / NOTES).is_file():
        raise InputError(app, "a folder of something else", "none, or one laid out before", "Give another --out.")
    if fresh:
        _move_aside(out)
    layout = Layout(app, studies)
    make_folder(app / "model")
    if not (app / NOTES).is_file():  # from here on the folder is ours, also if it cannot be served yet
        write_whole(app / NOTES, json.dumps({}))
    write_whole(app / "main.py", MAIN)
    cohort = None if "://" in studies or not (Path(studies) / "dataset.json").is_file() else Path(studies)
    for bundle in bundles:
        _install(layout, bundle.resolve(), runs.get(bundle.resolve().name), cohort)
    content = None if cohort is None else load_cohort(cohort)[0]
    for name in list(layout.served):
        if reason := misfit(app / "model" / name, content, modalities):
            layout.not_served[name] = reason
            del layout.served[name]
    if not layout.served:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in layout.not_served.items())
        raise InputError(app, f"no bundle to serve ({reasons})", "a trained bundle", "Train one: `make demo`.")
    served = [name for name in layout.served if not models or name in models]
    names = shared_names({name: app / "model" / name for name in served})
    subjects: dict[str, str] = {}
    source: dict[str, Any] = {}
    if cohort is not None:
        used = [runs[name] for name in runs if not models or name in models]
        subjects, source = _copy_studies(layout, out / "studies", cohort, sections, used, names)
    elif "://" not in studies and not Path(studies).is_dir():
        mend = "Give a cohort, a folder of scans, or http://…/dicom-web."
        raise InputError(studies, "no such folder", "scans", mend)
    notes = {"subjects": subjects, "not_served": layout.not_served, "source": source}
    write_whole(app / NOTES, json.dumps(notes, indent=1))
    return layout


def read_notes(app: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Scan to subject, for scans whose cohort knows it, and bundles that are not served with the reason."""
    file = app / NOTES
    notes = json.loads(file.read_text()) if file.is_file() else {}
    return dict(notes.get("subjects", {})), dict(notes.get("not_served", {}))


def _move_aside(out: Path) -> None:
    """What an earlier layout left goes to the next free ``before-N``."""
    parts = [out / name for name in ("app", "studies") if (out / name).exists()]
    if parts:
        number = 1 + max((int(p.name[7:]) for p in out.glob("before-*") if p.name[7:].isdigit()), default=0)
        make_folder(out / f"before-{number}")
        for part in parts:
            os.rename(part, out / f"before-{number}" / part.name)


def _install(layout: Layout, bundle: Path, run: Path | None, cohort: Path | None) -> None:
    """One bundle of the app, with the weights of its run."""
    name, target = bundle.name, layout.app / "model" / bundle.name
    weights, record = target / "models" / "model.pt", target / RECORD
    there = json.loads(record.read_text()) if record.is_file() and weights.is_file() else None
    origin = None if run is None else {"run": str(run.resolve()), "stamps": _stamps(run / "models" / "model.pt")}
    if there is not None:
        came_from = {key: there[key] for key in ("run", "stamps")}
        if origin is None or came_from == origin or there["installed"] != _stamps(weights):
            layout.kept.append(name)
            layout.served[name] = there["run"]
            if origin is not None and came_from != origin:
                layout.newer[name] = str(run)
            return
    if run is None:
        layout.not_served[name] = "no training of it was found"
        return
    options: dict[str, Any] = {} if cohort is None else {"dataset_dir": str(cohort.resolve())}
    if "label_values" in read_config(config_file(bundle, "train")):
        options["label_values"] = None  # labels of the app are classes already
    fresh = target.with_name(f".new-{name}")
    shutil.rmtree(fresh, ignore_errors=True)
    prepare_bundle(bundle, fresh, run / "models" / "model.pt", options, overlays=True)
    if target.exists():  # as it was laid out: nothing was trained in it
        shutil.rmtree(target)
        shutil.rmtree(layout.app / "scores" / name, ignore_errors=True)
    os.rename(fresh, target)
    write_whole(record, json.dumps({**(origin or {}), "installed": _stamps(weights)}, indent=1))
    layout.served[name] = str(run)


def _stamps(file: Path) -> list[list[int]]:
    return [list(pair) for pair in file_stamps(file)]


def _label_values(runs: Sequence[Path]) -> dict[int, int] | None:
    """Value in the label files to class, where a training had such."""
    for run in runs:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            if given := json.loads((run / "run.json").read_text())["config"].get("label_values"):
                return label_mapping(given)
    return None


def _copy_label(label: Path, target: Path, values: dict[int, int] | None, single: bool) -> None:
    """Copies a label; its values become classes (`values`), and one class (`single`) where the server knows one."""
    if values is None and not single:
        _copy(label, target)
        return
    from grn_monai.monailabel.saved import write_volume

    volume = read_volume(label, "label", 256, label_values=values)
    labels = np.asarray(volume[0]).astype(np.uint8)
    with replacing(target) as temporary:
        write_volume(temporary, (labels > 0).astype(np.uint8) if single else labels, np.asarray(volume.affine))


def _copy_studies(
    layout: Layout,
    folder: Path,
    cohort: Path,
    sections: Sequence[str],
    runs: Sequence[Path],
    names: Mapping[int, str],
) -> tuple[dict[str, str], dict[str, Any]]:
    """The cohort's scans, and the labels of those that the models were trained on, by the names that are served.

    Returns:
        the scans' subjects, and what the scans came from.

    Raises:
        InputError: the folder has scans of other sections or of another cohort, or a scan has changed since: labels
            that were saved for it may no longer be its own.
    """
    content, _ = load_cohort(cohort)
    items = [item for section in sections for item in content[section]]
    if not items:
        raise InputError(cohort, f"no scan in {', '.join(sections)}", "scans to serve", "Choose other sections.")
    check_file_names(items)
    notes = layout.app / NOTES
    before = json.loads(notes.read_text()).get("source", {}) if notes.is_file() else {}
    source: dict[str, Any] = {"cohort": str(cohort.resolve()), "sections": sorted(sections), "scans": {}}
    mend = "Give another --out, or --fresh (what is there moves aside)."
    for key in ("cohort", "sections"):
        if before and before[key] != source[key]:
            raise InputError(folder, f"scans of the {key} {before[key]}", f"those of {source[key]}", mend)
    records = [run / "run.json" for run in runs]
    used = {scan for record in records if record.is_file() for scan in json.loads(record.read_text()).get("scans", [])}
    values, single = _label_values(runs), is_single(names) and len(cohort_labels(content)) != 1
    subjects = {}
    for item in items:
        subject, scan = item_names(item)
        image = Path(item["image"])
        name, stamps = scan_name(image), _stamps(image)
        if before.get("scans", {}).get(name, stamps) != stamps:
            raise InputError(image, "a scan that has changed since it was laid out", "the same scan", mend)
        source["scans"][name] = stamps
        subjects[name] = subject
        _copy(image, folder / image.name)
        if scan in used and item.get("label") is not None:
            label = Path(item["label"])
            ending = ".nii.gz" if values or single else label.name[len(scan_name(label)) :]
            target = folder / "labels" / "final" / f"{name}{ending}"
            if not target.exists():  # one that was corrected since stays
                make_folder(target.parent)
                _copy_label(label, target, values, single)
            layout.labelled += 1
    layout.studies, layout.images = str(folder), len(items)
    return subjects, source


def _copy(source: Path, target: Path) -> None:
    """Copies a file unless it is there: never links, through which MONAI Label would write into the cohort."""
    for part in (source, *(source.with_suffix(ending) for ending in (".raw", ".zraw"))):
        goal = target if part is source else target.with_suffix(part.suffix)
        if part.is_file() and not (goal.is_file() and goal.stat().st_size == part.stat().st_size):
            with replacing(goal) as temporary:
                shutil.copy2(part, temporary)
