"""What the GRN and GRN+ papers print, to set beside our own numbers: another cohort, another machine.

**The tables are not complete.** `printed.json` holds only the values that could be read: the abstracts, the ablations,
the complexity table's parameters and training times, and single cells that are discussed with the misprints. The
full text of GRN's Tables 2 to 5 and of GRN+'s Tables 2 and 3 could not be found, so most cells, all scores of the
semi-supervised comparators among them, are missing here and none is guessed.

Sources: GRN, arXiv:2501.17690; GRN+, arXiv:2503.19736. Dice is in %, of test slices, in GRN's Table 6 of validation
slices; times are seconds for a batch of 4 on the authors' machine. A cell may be listed under several tables where the
row is known to stand in more than one of them, or in one of them; GRN+'s scores by share of labels are taken to stand
in its Table 2, since Tables 3 and 4 hold other things.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["PrintedDice", "abstracts", "printed_complexity", "printed_dice", "printed_effect", "printed_notes"]


class PrintedDice(NamedTuple):
    """A Dice value (%) of a paper, where it stands (`GRN Table 6`, or several where it may be any of them), and what
    speaks against it, a few words each."""

    value: float
    source: str
    doubts: tuple[str, ...] = ()


@cache
def _content() -> dict[str, Any]:
    text = (files("grn_monai.report.study") / "printed.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def _place(table: str) -> tuple[str, int | None]:
    """`"GRN+ Table 3"` to paper and number; the paper alone has no number."""
    match = re.fullmatch(r"(GRN\+?)(?: Table (\d+))?", table)
    if match is None:
        msg = f"table must be such as 'GRN Table 2' or 'GRN+', got {table!r}"
        raise ValueError(msg)
    return match[1], int(match[2]) if match[2] else None


def _within(row: dict[str, Any], table: str) -> bool:
    paper, number = _place(table)
    return row["paper"] == paper and (number is None or number in row["tables"])


def _find(table: str, method: str, fraction: float, layer: str, mode: str) -> dict[str, Any] | None:
    layer = {"mean": "overall"}.get(layer, layer.replace("_", " "))
    wanted = {"method": method, "mode": mode, "layer": layer}
    rows = (
        row
        for row in _content()["dice"]
        if _within(row, table)
        and {"mode": "raw", **row}.items() >= wanted.items()
        and abs(row["fraction"] - fraction) < 1e-9
    )
    return next(rows, None)


def printed_dice(
    table: str, method: str, fraction: float, layer: str = "overall", mode: str = "raw"
) -> PrintedDice | None:
    """Dice (%) that a paper prints.

    Args:
        table: such as `GRN Table 6` or `GRN+ Table 3`; the paper alone (`GRN`) takes the first table that has it.
        method: such as `unet`, `grn_sel`, `grn_plus`; a study's method may name it by `printed`.
        fraction: share of the labels, in (0, 1].
        layer: name of the layer, with spaces or underscores; `overall` or `mean` is the mean of the six.
        mode: `raw` for S(x), `sge` for S(G(x)).

    Returns:
        The value with its source, or None where the paper has none or it could not be read.

    Raises:
        ValueError: a table of no such paper.
    """
    row = _find(table, method, fraction, layer, mode)
    if row is None:
        return None
    numbers = [str(number) for number in row["tables"]]
    source = f"{row['paper']} Table {numbers[0]}"
    if len(numbers) > 1:
        source = f"{row['paper']} Tables {', '.join(numbers[:-1])} or {numbers[-1]}"
    return PrintedDice(float(row["value"]), source, (row["doubt"],) if "doubt" in row else ())


def printed_effect(effect: str, fraction: float) -> PrintedDice | None:
    """Effect in percentage points that GRN's Table 5 prints: `raug`, `ssl_sge`."""
    for row in _content()["effects"]:
        if row["effect"] == effect and abs(row["fraction"] - fraction) < 1e-9:
            return PrintedDice(float(row["value"]), "GRN Table 5", (row["doubt"],) if "doubt" in row else ())
    return None


def printed_complexity() -> dict[str, dict[str, Any]]:
    """Rows of GRN+'s Table 4 by our name: `row` as printed, and `parameters` and `train_seconds` where known."""
    return {name: dict(row) for name, row in _content()["complexity"].items()}


def printed_notes(table: str) -> list[str]:
    """Misprints and contradictions in one table (`GRN Table 5`), or in a whole paper (`GRN`)."""
    return [note["text"] for note in _content()["notes"] if _within(note, table)]


def abstracts() -> dict[str, str]:
    """Paper to the results its abstract states, in our words."""
    return {row["paper"]: row["says"] for row in _content()["abstracts"]}
