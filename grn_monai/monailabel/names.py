"""Which bundles one server can have: those that fit its scans, and that label alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grn_monai.data.checks import cohort_modality, modality_name
from grn_monai.dicom.read import label_value
from grn_monai.errors import InputError, listed
from grn_monai.zoo._labels import is_single, label_names, modality_of

__all__ = ["cohort_labels", "misfit", "shared_names"]


def cohort_labels(cohort: Mapping[str, Any]) -> dict[int, str]:
    """Label value to name of a cohort, background left out."""
    return {int(value): str(name) for value, name in cohort.get("labels", {}).items() if int(value)}


def misfit(bundle: Path, cohort: Mapping[str, Any] | None, modalities: Iterable[str] = ()) -> str:
    """Why a bundle cannot serve these scans; "": it can, as far as anything tells.

    Args:
        bundle: its folder.
        cohort: content of the cohort's file, if the scans are one.
        modalities: those that were asked for; empty: any.
    """
    kind, wanted = modality_of(bundle), [modality_name(name) or name for name in modalities]
    if kind and wanted and kind not in wanted:
        return f"its scans are {kind}, not {' or '.join(wanted)}"
    if cohort is None:
        return ""
    theirs = cohort_modality(cohort)
    if kind and theirs and kind != theirs:
        return f"its scans are {kind}, those of the cohort {theirs}"
    names = label_names(bundle)
    if is_single(names):
        return ""
    labels = cohort_labels(cohort)
    other = [f"{v} {labels[v]}" for v in sorted(labels) if v in names and label_value(labels[v], {v: names[v]}) != v]
    if other:
        own = ", ".join(f"{value} {name}" for value, name in names.items() if value)
        return f"it labels {own}, the cohort {listed(other)}"
    return ""


def shared_names(folders: Mapping[str, Path]) -> dict[int, str]:
    """Label value to name of all bundles of one server: a label that is saved has one meaning for all of them.

    Args:
        folders: bundle name to its folder.

    Raises:
        InputError: they label differently.
    """
    sets: dict[tuple[tuple[int, str], ...], list[str]] = {}
    for name, folder in folders.items():
        sets.setdefault(tuple(sorted(label_names(folder).items())), []).append(name)
    if len(sets) > 1:
        groups = [f"{', '.join(bundles)} ({', '.join(n for v, n in names if v)})" for names, bundles in sets.items()]
        mend = (
            f"Serve one set at a time, such as --conf models {','.join(next(iter(sets.values())))}, or by --modality."
        )
        raise InputError("models", f"several sets of labels: {'; '.join(groups)}", "one set for one server", mend)
    return dict(next(iter(sets))) if sets else {}
