"""Read the `muscles.csv` of one or more evaluations into one array: conditions, subjects, muscles, measures."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError, listed
from grn_monai.metrics.files import read_rows
from grn_monai.metrics.muscles import MUSCLE_COLUMNS, MUSCLE_MEASURES

__all__ = ["RESERVED", "AgreementData", "Run", "load_runs", "parse_run"]

Floats = npt.NDArray[np.float64]

RESERVED = ("subject", "muscle", "scan")
"""Names that no factor may have."""

_SYNTAX = "FOLDER, or FACTOR=LEVEL,FACTOR=LEVEL:FOLDER such as dimension=2D,augmentation=no:runs/2d"


class Run(NamedTuple):
    """The levels of an evaluation, factor to level, and the file with its scores."""

    levels: Mapping[str, str]
    file: Path


@dataclass(frozen=True)
class AgreementData:
    """Scores of every subject under every condition.

    Attributes:
        factors: factor to its levels, in the order in which they were given; empty for one model.
        conditions: level of each factor, for each condition.
        files: files of each condition.
        subjects: names of the subjects.
        muscles: names of the muscles.
        values: (conditions, subjects, muscles, measures of `MUSCLE_MEASURES`); NaN undefined or missing, inf a distance
            to nothing. Several scans of a subject are averaged, over those with a finite value.
        present: (conditions, subjects, muscles): whether there is a row.
        notes: what a reader has to know of the input.
    """

    factors: dict[str, list[str]]
    conditions: list[tuple[str, ...]]
    files: list[list[Path]]
    subjects: list[str]
    muscles: list[str]
    values: Floats
    present: npt.NDArray[np.bool_]
    notes: list[str] = field(default_factory=list)

    def name(self, condition: int) -> str:
        """A condition in words: "dimension 2D, augmentation no"; "all scans" where there are no factors."""
        levels = self.conditions[condition]
        return ", ".join(f"{f} {level}" for f, level in zip(self.factors, levels, strict=True)) or "all scans"

    def key(self, condition: int) -> str:
        """Its name in names of files: `2-dimension-3d`, numbered since levels may differ in signs and case only."""
        plain = re.sub(r"[^A-Za-z0-9]+", "-", self.name(condition)).strip("-").lower()
        return f"{condition + 1}-{plain}"

    def of(self, measure: str) -> Floats:
        """(conditions, subjects, muscles) of one measure."""
        values: Floats = self.values[..., MUSCLE_MEASURES.index(measure)]
        return values


def parse_run(text: str) -> Run:
    """Read `FOLDER` or `FACTOR=LEVEL,…:FOLDER`; FOLDER holds muscles.csv, or evaluation/muscles.csv, or is that file.

    Raises:
        InputError: the levels are no `FACTOR=LEVEL`, a factor is named twice or as a column, or there is no such file.
    """
    head, colon, rest = text.partition(":")
    levels: dict[str, str] = {}
    if colon and "=" in head:
        for part in head.split(","):
            factor, _, level = (piece.strip() for piece in part.partition("="))
            if not factor or not level or factor in levels or factor.lower() in RESERVED:
                found = f"{part!r}"
                expected = f"factors with a level each, none twice and none named {', '.join(RESERVED)}"
                raise InputError(text, found, expected, f"Write a run as {_SYNTAX}.")
            levels[factor] = level
    folder = Path(rest if levels else text)
    for file in (folder, folder / "muscles.csv", folder / "evaluation" / "muscles.csv"):
        if file.is_file():
            return Run(levels, file)
    raise InputError(
        folder,
        "no muscles.csv" if folder.exists() else "no such folder",
        "a folder that `grn-monai evaluate`, or a bundle's evaluation, wrote for a muscle cohort",
        f"Write a run as {_SYNTAX}.",
    )


def _number(file: Path, line: int, column: str, text: str) -> float:
    if text.strip() == "":
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InputError(
            file, f"{text!r} as {column} in line {line}", "a number, inf, or nothing", "Evaluate again."
        ) from None


_Rows = dict[tuple[str, str], dict[str, list[float]]]
"""(subject, muscle) to scan to its measures."""


def _read(file: Path, rows: _Rows, condition: str) -> None:
    """Add the rows of a file."""
    try:
        lines = read_rows(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(file, f"no readable text ({error})", "a CSV file", "Evaluate again.") from error
    missing = [column for column in MUSCLE_COLUMNS if column not in (lines[0] if lines else {})]
    if missing:
        found = f"no column {listed(missing)}" if lines else "no rows"
        raise InputError(file, found, f"the columns {', '.join(MUSCLE_COLUMNS)}", "Evaluate again.")
    for number, line in enumerate(lines, 2):
        key = (line["subject"], line["muscle"])
        scans = rows[key]
        if line["scan"] in scans:
            raise InputError(
                file,
                f"{line['muscle']} of scan {line['scan']} of subject {line['subject']} a second time under "
                f"{condition} (line {number})",
                "each scan once in all runs with the same levels (those are folds of one model)",
                f"Tell the models apart by their levels: {_SYNTAX}.",
            )
        scans[line["scan"]] = [_number(file, number, name, line[name] or "") for name in MUSCLE_MEASURES]


def _average(scans: Mapping[str, Sequence[float]]) -> Floats:
    """(measures,) mean over the scans with a finite value; without any, inf before NaN."""
    table = np.array(list(scans.values()))
    finite = np.isfinite(table)
    means = np.where(finite, table, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    return np.where(finite.any(axis=0), means, np.where(np.isinf(table).any(axis=0), np.inf, np.nan))


def load_runs(texts: Sequence[str]) -> AgreementData:
    """Read the runs; those with the same levels are folds of one model, whose subjects are pooled.

    Args:
        texts: runs as `parse_run` reads them.

    Raises:
        InputError: anything `parse_run` refuses, runs that name different factors or hold different muscles, faulty
            files, or a scan twice under the same levels.
    """
    runs = [parse_run(text) for text in texts]
    factors: dict[str, list[str]] = {name: [] for name in runs[0].levels}
    conditions: dict[tuple[str, ...], list[Path]] = {}
    for text, run in zip(texts, runs, strict=True):
        if set(run.levels) != set(factors):
            found = f"the factors {', '.join(run.levels) or '(none)'}"
            raise InputError(text, found, f"those of the first run: {', '.join(factors) or '(none)'}", "Name them all.")
        for name, known in factors.items():
            known += [run.levels[name]] * (run.levels[name] not in known)
        conditions.setdefault(tuple(run.levels[name] for name in factors), []).append(run.file)
    tables: list[_Rows] = []
    for levels, files in conditions.items():
        rows: _Rows = defaultdict(dict)
        for file in files:
            _read(file, rows, ", ".join(levels) or "one model")
        tables.append(rows)
    muscles = [list(dict.fromkeys(muscle for _, muscle in rows)) for rows in tables]
    for files, names in zip(conditions.values(), muscles, strict=True):
        if set(names) != set(muscles[0]):
            raise InputError(files[0], f"the muscles {', '.join(names)}", ", ".join(muscles[0]), "Score one label set.")
    subjects = list(dict.fromkeys(subject for rows in tables for subject, _ in rows))
    shape = (len(tables), len(subjects), len(muscles[0]))
    values, present = np.full((*shape, len(MUSCLE_MEASURES)), np.nan), np.zeros(shape, dtype=bool)
    for c, rows in enumerate(tables):
        for (subject, muscle), scans in rows.items():
            place = (c, subjects.index(subject), muscles[0].index(muscle))
            values[place], present[place] = _average(scans), True
    data = AgreementData(factors, list(conditions), list(conditions.values()), subjects, muscles[0], values, present)
    data.notes.extend(_notes(data, max(len(scans) for rows in tables for scans in rows.values())))
    return data


def _notes(data: AgreementData, scans: int) -> list[str]:
    """What is uneven in the input."""
    notes = []
    if scans > 1:
        notes.append(f"Subjects have up to {scans} scans: each subject's mean counts once.")
    for c in range(len(data.conditions)):
        missing = [s for s, there in zip(data.subjects, data.present[c].all(axis=1), strict=True) if not there]
        if missing:
            notes.append(f"{data.name(c)}: without all muscles of {listed(missing)}.")
    truth = np.where(data.present, data.of("truth_volume_ml"), np.nan)
    for s, subject in enumerate(data.subjects):
        known = truth[:, s][:, data.present[:, s].all(axis=0)]
        if known.size and np.any(np.ptp(known, axis=0) > 0.01 * np.maximum(known.max(axis=0), 0.1)):
            notes.append(
                f"Subject {subject}: the true volumes differ by more than 1 % between the runs, so these were scored "
                "against other truths or on other grids."
            )
    return notes
