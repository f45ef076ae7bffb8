"""Lays out the folder that MONAI Label serves: the app with its bundles, and the studies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grn_monai.data.cohort import SECTIONS, load_cohort
from grn_monai.data.names import check_file_names, item_names
from grn_monai.data.volume import scan_name
from grn_monai.errors import InputError
from grn_monai.files import file_stamps, make_folder, replacing, write_whole
from grn_monai.zoo.prepare import prepare_bundle

__all__ = ["Layout", "find_runs", "lay_out", "read_notes"]

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
        not_served: bundle to the reason.
        images: number of scans in a folder that was made here, or None.
        labelled: number of them whose labels came along.
    """

    app: Path
    studies: str
    served: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    not_served: dict[str, str] = field(default_factory=dict)
    images: int | None = None
    labelled: int = 0


def find_runs(runs: Path, bundles: Sequence[Path]) -> dict[str, Path]:
    """The newest finished training of each bundle.

    Args:
        runs: folder that is searched at any depth for ``run.json`` beside ``models/model.pt``.
        bundles: folders of bundles; a run belongs to the one whose metadata has the run's name.

    Returns:
        bundle name to the run's folder, for those that have one.
    """
    names = {json.loads((b / "configs" / "metadata.json").read_text())["name"]: b.resolve().name for b in bundles}
    found: dict[str, tuple[int, Path]] = {}
    for record in runs.rglob("run.json") if runs.is_dir() else ():
        model = record.parent / "models" / "model.pt"
        try:
            name = names[json.loads(record.read_text())["config"]["_meta_"]["name"]]
            time = model.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another command's record, or a training that has no model yet
        if name not in found or time > found[name][0]:
            found[name] = (time, record.parent)
    return {name: run for name, (_, run) in found.items()}


def lay_out(
    out: Path,
    bundles: Sequence[Path],
    runs: Mapping[str, Path],
    studies: str,
    sections: Sequence[str] = ("training", "unlabeled"),
    fresh: bool = False,
) -> Layout:
    """Make, or bring up to date, what a server needs.

    A bundle that is in the app already keeps the weights that were trained there, as long as it came from the same
    run; ``fresh`` makes it anew.

    Args:
        out: folder to make: ``app/`` and, for a cohort, ``studies/``.
        bundles: folders of bundles.
        runs: bundle name to the folder of its training.
        studies: a cohort folder (its scans are copied, so that MONAI Label's own files, saved labels and deletions
            stay out of it), any other folder (served in place, as MONAI Label does), or the URL of a DICOM server.
        sections: the cohort's sections to serve. Scans that will be tested are better left out: whoever labels them
            trains on them.
        fresh: throw away bundles, scores and studies of an earlier layout.

    Returns:
        what is there now.

    Raises:
        InputError: no bundle has weights, the studies are at fault, or something cannot be written.
    """
    for section in sections:
        if section not in SECTIONS:
            raise InputError("sections", repr(section), f"some of {', '.join(SECTIONS)}", "Correct the option.")
    app = out / "app"
    make_folder(out)
    if fresh:
        for part in (app, out / "studies"):
            shutil.rmtree(part, ignore_errors=True)
    layout = Layout(app, studies)
    make_folder(app / "model")
    write_whole(app / "main.py", MAIN)
    cohort = None if "://" in studies or not (Path(studies) / "dataset.json").is_file() else Path(studies)
    for bundle in bundles:
        _install(layout, bundle.resolve(), runs.get(bundle.resolve().name), cohort)
    if not layout.served:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in layout.not_served.items())
        raise InputError(app, f"no bundle to serve ({reasons})", "a trained bundle", "Train one: `make demo`.")
    subjects: dict[str, str] = {}
    if cohort is not None:
        subjects = _copy_studies(layout, out / "studies", cohort, sections, list(runs.values()))
    elif "://" not in studies and not Path(studies).is_dir():
        mend = "Give a cohort, a folder of scans, or http://…/dicom-web."
        raise InputError(studies, "no such folder", "scans", mend)
    notes = {"subjects": subjects, "not_served": layout.not_served}
    write_whole(app / NOTES, json.dumps(notes, indent=1))
    return layout


def read_notes(app: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Scan to subject, for scans whose cohort knows it, and bundles that are not served with the reason."""
    file = app / NOTES
    notes = json.loads(file.read_text()) if file.is_file() else {}
    return dict(notes.get("subjects", {})), dict(notes.get("not_served", {}))


def _install(layout: Layout, bundle: Path, run: Path | None, cohort: Path | None) -> None:
    """One bundle of the app, with the weights of its run."""
    name, target = bundle.name, layout.app / "model" / bundle.name
    if run is None:
        if (target / "models" / "model.pt").is_file():
            layout.kept.append(name)
            layout.served[name] = "an earlier layout"
        else:
            layout.not_served[name] = "no training of it was found"
        return
    model = run / "models" / "model.pt"
    origin = {"run": str(run.resolve()), "stamps": [list(pair) for pair in file_stamps(model)]}
    record = target / RECORD
    if record.is_file() and json.loads(record.read_text()) == origin:
        layout.kept.append(name)
    else:
        if target.exists():
            shutil.rmtree(target)
            shutil.rmtree(layout.app / "scores" / name, ignore_errors=True)
        options: dict[str, Any] = {} if cohort is None else {"dataset_dir": str(cohort.resolve())}
        prepare_bundle(bundle, target, model, options)
        write_whole(record, json.dumps(origin, indent=1))
    layout.served[name] = str(run)


def _copy_studies(
    layout: Layout, folder: Path, cohort: Path, sections: Sequence[str], runs: Sequence[Path]
) -> dict[str, str]:
    """The cohort's scans, and the labels of those that the models were trained on; returns the scans' subjects."""
    content, _ = load_cohort(cohort)
    items = [item for section in sections for item in content[section]]
    if not items:
        raise InputError(cohort, f"no scan in {', '.join(sections)}", "scans to serve", "Choose other sections.")
    check_file_names([{**item} for item in items])
    used = {scan for run in runs for scan in json.loads((run / "run.json").read_text()).get("scans", [])}
    subjects = {}
    for item in items:
        subject, scan = item_names(item)
        image = Path(item["image"])
        subjects[scan_name(image)] = subject
        _copy(image, folder / image.name)
        if scan in used and item.get("label") is not None:
            label = Path(item["label"])
            ending = label.name[len(scan_name(label)) :]
            target = folder / "labels" / "final" / f"{scan_name(image)}{ending}"
            if not target.exists():  # one that was corrected since stays
                _copy(label, target)
            layout.labelled += 1
    layout.studies, layout.images = str(folder), len(items)
    return subjects


def _copy(source: Path, target: Path) -> None:
    """Copies a file unless it is there: never links, through which MONAI Label would write into the cohort."""
    for part in (source, *(source.with_suffix(ending) for ending in (".raw", ".zraw"))):
        goal = target if part is source else target.with_suffix(part.suffix)
        if part.is_file() and not (goal.is_file() and goal.stat().st_size == part.stat().st_size):
            with replacing(goal) as temporary:
                shutil.copy2(part, temporary)
