"""A bundle's page (docs/README.md) made to match its pack: names of the configs, and the scores of these weights."""

from __future__ import annotations

import re
from pathlib import Path

from grn_monai.errors import InputError
from grn_monai.files import write_whole

__all__ = ["name_configs_json", "set_block"]


def name_configs_json(page: Path, stems: set[str]) -> None:
    """Turn the names of YAML configs into those of the JSON ones, also where the page says ``NAME.yaml`` for any.

    Args:
        page: the file.
        stems: names of the configs without their ending; other YAML files keep theirs.
    """
    names = "|".join(sorted(map(re.escape, stems | {"NAME"}), key=len, reverse=True))
    write_whole(page, re.sub(rf"(?<![\w-])({names})\.yaml\b", r"\1.json", page.read_text(encoding="utf-8")))


def set_block(page: Path, name: str, content: str) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Raises:
        InputError: the page has no such place: what is said there of other weights could not be taken out.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, there, rest = page.read_text(encoding="utf-8").partition(start)
    _, ended, after = rest.partition(end)
    if not there or not ended:
        raise InputError("docs/README.md", f"no {start} … {end}", "the place of that table", "Put both marks there.")
    write_whole(page, f"{before}{start}\n{content}\n{end}{after}")
