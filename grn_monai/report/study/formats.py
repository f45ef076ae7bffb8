"""One table as Markdown, CSV and LaTeX: the same cells in each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grn_monai.metrics.files import csv_text
from grn_monai.report.numbers import MISSING, number
from grn_monai.report.tables import Cell, Table

__all__ = [
    "Entry",
    "StudyTable",
    "csv_table",
    "escape_markdown",
    "escape_tex",
    "html_table",
    "markdown_table",
    "tex_table",
    "text_entry",
]


@dataclass(frozen=True)
class Entry:
    """A cell.

    Attributes:
        value: the number, in the unit that the table shows; None for a dash. A text goes into `text`.
        digits: decimals.
        signed: with a plus sign.
        half: half-width of the papers' interval, shown after ±; None for none.
        below: small lines below.
        best: the best of its column.
        marks: "*" and "†".
        parts: further numbers of the cell for CSV and JSON, name to number or text.
        text: shown instead of a number.
    """

    value: float | None = None
    digits: int = 1
    signed: bool = False
    half: float | None = None
    below: tuple[str, ...] = ()
    best: bool = False
    marks: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None

    @property
    def shown(self) -> str:
        """The entry as read, without its marks."""
        if self.text is not None:
            return self.text
        main = number(self.value, self.digits, signed=self.signed)
        return main if self.half is None or main == MISSING else f"{main} ± {number(self.half, self.digits)}"


def text_entry(text: str, *below: str) -> Entry:
    """A cell that holds words."""
    return Entry(text=text, below=below)


@dataclass(frozen=True)
class StudyTable:
    """A table of the report.

    Attributes:
        key: name of its files.
        title: heading.
        columns: headings of the cells.
        rows: (name, cells).
        notes: sentences below it.
        corner: heading of the names.
        place: section of the report.
        origin: where the scans come from ("Simulated scans …"), in every file of the table; empty for real ones.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Entry]]]
    notes: Sequence[str] = ()
    corner: str = "method"
    place: str = "dice"
    origin: str = ""

    @property
    def sentences(self) -> list[str]:
        """Origin and notes."""
        return [*([self.origin] if self.origin else []), *self.notes]


def html_table(table: StudyTable) -> Table:
    """For the pages' macro."""
    rows = [(name, [Cell(c.shown + c.marks, tuple(c.below), c.best) for c in cells]) for name, cells in table.rows]
    return Table(list(table.columns), rows)


def escape_markdown(text: str) -> str:
    """Text for Markdown, on one line."""
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", " ".join(text.split()))


def markdown_table(table: StudyTable) -> str:
    """GitHub's Markdown: title, table, notes."""

    def cell(entry: Entry) -> str:
        main = escape_markdown(entry.shown)
        main = f"**{main}**" if entry.best else main
        return "<br>".join([main + escape_markdown(entry.marks), *map(escape_markdown, entry.below)])

    lines = [f"### {escape_markdown(table.title)}", ""]
    lines.append("| " + " | ".join(map(escape_markdown, [table.corner, *table.columns])) + " |")
    lines.append("| --- |" + " ---: |" * len(table.columns))
    lines += ["| " + " | ".join([escape_markdown(name), *map(cell, cells)]) + " |" for name, cells in table.rows]
    if table.sentences:
        lines += ["", escape_markdown(" ".join(table.sentences))]
    return "\n".join(lines) + "\n"


def _no_formula(value: Any) -> Any:
    """A text that a spreadsheet would run, made one that it shows."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def csv_table(table: StudyTable) -> str:
    """Plain CSV: the figures, and after each of them the further numbers (`COLUMN: PART`) that any row has.

    The last column says where the scans come from, if they are not real ones. A text that a spreadsheet would take for
    a formula starts with an apostrophe.
    """
    head, picks = [table.corner], []
    for i, column in enumerate(table.columns):
        head.append(column)
        parts = list(dict.fromkeys(part for _, cells in table.rows for part in cells[i].parts))
        head += [f"{column}: {part}" for part in parts]
        picks.append(parts)

    def values(name: str, cells: Sequence[Entry]) -> list[Any]:
        row: list[Any] = [_no_formula(name)]
        for cell, parts in zip(cells, picks, strict=True):
            value = cell.text if cell.text is not None else cell.value
            row += ["" if v is None else _no_formula(v) for v in (value, *(cell.parts.get(part) for part in parts))]
        return row + ([table.origin] if table.origin else [])

    head = [_no_formula(text) for text in [*head, *(["origin"] if table.origin else [])]]
    return csv_text(head, [values(name, cells) for name, cells in table.rows])


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # At the start of a row these would be read as options of the line break before it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "√": r"$\surd$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "²": r"\textsuperscript{2}",
    "ⁿ": r"\textsuperscript{n}",
    "†": r"\dag{}",
    "\u202f": r"\,",
    "\u00a0": "~",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "∞": r"$\infty$",
}


def escape_tex(text: str) -> str:
    """Text for LaTeX (UTF-8): special characters escaped, symbols as commands, line breaks as spaces."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(re.split(r"[ \t\r\n]+", text)))


def tex_table(table: StudyTable) -> str:
    """A LaTeX `table` with booktabs; small lines below a entry stand under it, in `\\shortstack`."""

    def cell(entry: Entry) -> str:
        main = escape_tex(entry.shown)
        main = rf"\textbf{{{main}}}" if entry.best else main
        if entry.marks:
            main += rf"\textsuperscript{{{escape_tex(entry.marks)}}}"
        if not entry.below:
            return main
        small = [rf"{{\scriptsize {escape_tex(line)}}}" for line in entry.below]
        lines = r"\\".join([main, *small])
        return rf"\shortstack[r]{{{lines}}}"

    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    rows = [line([escape_tex(name), *map(cell, cells)]) for name, cells in table.rows]
    label = re.sub(r"[^A-Za-z0-9-]+", "-", table.key).strip("-")
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs} and, for its width, \usepackage{graphicx}.",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_tex(table.title)}. {escape_tex(' '.join(table.sentences))}}}",
            rf"  \label{{tab:{label}}}",
            r"  \resizebox{\linewidth}{!}{%",
            rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"    \toprule",
            line([escape_tex(text) for text in (table.corner, *table.columns)]),
            r"    \midrule",
            *rows,
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
            "",
        ]
    )
