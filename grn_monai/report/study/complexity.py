"""The complexity table of a study (GRN+'s Table 4), from `complexity.json` that `benchmarks.complexity` measured.

Nothing is measured here. The papers' parameters and training times stand beside ours, which are of another machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.report.numbers import MISSING, significant
from grn_monai.report.study.formats import Entry, StudyTable, text_entry
from grn_monai.report.study.printed import printed_complexity

__all__ = [
    "COMPLEXITY_FILE",
    "ComplexityRow",
    "complexity_notes",
    "complexity_rows",
    "complexity_table",
    "load_complexity",
]

COMPLEXITY_FILE = "complexity.json"
"""Name of the measurements in a study's output folder."""

_MODES = {"raw": "", "sge": " w. SGE"}


@dataclass(frozen=True)
class ComplexityRow:
    """One method in one mode of inference.

    Attributes:
        key: the method's key in the study.
        mode: `raw` for S(x), `sge` for S(G(x)).
        title: what tables call it.
        parameters: those that take part in the prediction.
        trained_parameters: those that the optimizers of the training step, generator and discriminator among them.
        flops: of one image's prediction; a multiplication and an addition are two.
        train_seconds: of one training step, median.
        train_images: labelled and unlabelled images of a step.
        precision: of the training step, such as `float32`.
        infer_seconds: of one batch's prediction in float32, median.
        memory: peak of a training step in bytes, see `complexity_measure.step_memory`; None where not measured.
        printed_parameters, printed_train_seconds: what GRN+'s Table 4 prints, of another machine.
    """

    key: str
    mode: str
    title: str
    parameters: int
    trained_parameters: int
    flops: int
    train_seconds: float
    train_images: tuple[int, int]
    precision: str
    infer_seconds: float
    memory: int | None
    printed_parameters: int | None = None
    printed_train_seconds: float | None = None


def load_complexity(folder: str | PathLike[str]) -> dict[str, Any] | None:
    """Content of `complexity.json` of a study's folder; None if there is none.

    Raises:
        InputError: the file is no such JSON.
    """
    file = Path(folder) / COMPLEXITY_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(file, f"no valid JSON ({error})", "measurements", _MEND) from error
    if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
        raise InputError(file, "no list `cases`", "measurements", _MEND)
    return content


_MEND = "Measure again with `python -m benchmarks.complexity STUDY.yaml --out FOLDER/complexity.json`."


def complexity_rows(content: dict[str, Any]) -> list[ComplexityRow]:
    """Rows of every case that was measured, in the study's order, a row for each mode of inference."""
    printed = printed_complexity()
    rows = []
    for case in content["cases"]:
        if "error" in case:
            continue
        train = case["train"]
        paper = printed.get(str(case.get("printed") or case["key"]), {})
        for mode, inference in case["inference"].items():
            title = case["title"] + (_MODES.get(mode, f" ({mode})") if len(case["inference"]) > 1 else "")
            rows.append(
                ComplexityRow(
                    key=case["key"],
                    mode=mode,
                    title=title,
                    parameters=inference["parameters"],
                    trained_parameters=train["parameters"],
                    flops=inference["flops"],
                    train_seconds=train["seconds"],
                    train_images=(train["images"][0], train["images"][1]),
                    precision=train["precision"],
                    infer_seconds=inference["seconds"],
                    memory=(train.get("memory") or {}).get("peak"),
                    printed_parameters=paper.get("parameters")
                    if mode == "raw" or len(case["inference"]) == 1
                    else None,
                    printed_train_seconds=paper.get("train_seconds"),
                )
            )
    return rows


def _count(value: int | None) -> Entry:
    return text_entry(MISSING) if value is None else Entry(text=f"{value:,}", parts={"exact": value})


def _measured(value: float, **parts: float) -> Entry:
    return Entry(text=significant(value), parts={"exact": value, **parts})


def _images(row: ComplexityRow) -> str:
    labelled, unlabelled = row.train_images
    return f"{labelled} + {unlabelled}" if unlabelled else str(labelled)


def complexity_table(content: dict[str, Any]) -> StudyTable:
    """The table, a row for each method and mode of inference; what was left out is in its notes, with the reason."""
    size, batch = content["size"], content["batch"]
    columns = [
        "Parameters",
        "Parameters, printed",
        "Parameters trained",
        f"GFLOP an image of {size} × {size}",
        f"Training step of {batch} (s)",
        "Training step, printed (s)",
        "Images of a step",
        "Precision",
        f"Inference of {batch} (s)",
        "Peak memory of a step (MiB)",
    ]
    body = [
        (
            row.title,
            [
                _count(row.parameters),
                _count(row.printed_parameters),
                _count(row.trained_parameters),
                _measured(row.flops / 1e9),
                _measured(row.train_seconds),
                Entry(row.printed_train_seconds, digits=4),
                text_entry(_images(row)),
                text_entry(row.precision),
                _measured(row.infer_seconds),
                text_entry(MISSING) if row.memory is None else _count(round(row.memory / 2**20)),
            ],
        )
        for row in complexity_rows(content)
    ]
    title = "Complexity (GRN+ Table 4)"
    return StudyTable("complexity", title, columns, body, complexity_notes(content), place="complexity")


def complexity_notes(content: dict[str, Any]) -> list[str]:
    """What a reader must know of the table: how it was measured, on what, and what was left out and why."""
    origin = content.get("provenance") or {}
    device = origin.get("cuda") if str(content.get("device", "cpu")).startswith("cuda") else None
    threads = content.get("threads") or origin.get("threads")
    machine = device or ("1 CPU thread" if threads == 1 else f"{threads} CPU threads")
    torch_version = (origin.get("versions") or {}).get("torch")
    notes = [
        f"Measured in one process, all methods in turn: median of {content['rounds']} after a warm-up, on "
        f"{machine}{f', torch {torch_version}' if torch_version else ''}. Times of loading data are not in them.",
        "Parameters are those that take part in the prediction; parameters trained are those that optimizers step in "
        "training, a generator and a discriminator among them. FLOPs count convolutions and matrix products, a "
        "multiplication and an addition as two. Images of a step are labelled + unlabelled ones. Memory is what "
        "tensors hold at the peak of a training step, with parameters and optimizer states. Inference is in float32.",
        "Printed values are those of GRN+'s Table 4, of another machine; its row “GRN” stands beside GRN-SSL.",
    ]
    return notes + [f"{case['title']} was left out: {case['error']}" for case in content["cases"] if "error" in case]
