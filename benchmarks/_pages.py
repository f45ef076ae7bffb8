"""What the tables of pages are made with: Markdown, means with their spread, and the places between two markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grn_monai.files import write_whole


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the second row is that of the dashes."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def plus_minus(values: Mapping[str, Any], sign: str = "", factor: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation, which one value does not have."""
    deviation = "" if values["sd"] is None else f" ± {factor * values['sd']:.{digits}f}"
    return f"{factor * values['mean']:{sign}.{digits}f}{deviation}"


def block(name: str, content: str) -> str:
    """A block between its markers."""
    return f"<!-- {name} -->\n{content}\n<!-- /{name} -->"


def write_blocks(page: Path, contents: Mapping[str, str]) -> None:
    """Put contents into a page, each between its markers.

    Raises:
        RuntimeError: the page has no place for one; it is left as it is.
    """
    text = page.read_text()
    for name, content in contents.items():
        before, start, rest = text.partition(f"<!-- {name} -->")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not start or not end:
            raise RuntimeError(f"{page}: no place for {name}, between <!-- {name} --> and <!-- /{name} -->")
        text = before + block(name, content) + after
    write_whole(page, text)
