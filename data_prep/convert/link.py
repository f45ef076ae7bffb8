"""The private file that tells which scan of a cohort came from which files; it stays outside the cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.files import replacing

__all__ = ["FORMAT", "Link", "default_link"]

FORMAT = "grn-monai link 1"


def default_link(out: Path) -> Path:
    """``OUT.link.json`` beside the cohort's folder, never inside it."""
    return out.with_name(out.name + ".link.json")


class Link:
    """Reads, keeps and writes a link file.

    Its ``scans`` map each scan's name to ``subject``, ``source_subject``, ``kind``, ``files``, ``placement``,
    ``image`` (absolute path in the cohort), ``described`` and ``stamps`` (what was converted, to tell whether it has
    changed) and ``record``.

    Args:
        path: the file; read if it exists. None keeps everything in memory only.
        out: the cohort's folder.

    Raises:
        InputError: the file lies inside the cohort, is no link file, or that of another cohort.
    """

    def __init__(self, path: Path | None, out: Path) -> None:
        self.path = path
        self.scans: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        if path.resolve().is_relative_to(out.resolve()):
            mend = "Put it beside the cohort: it names source files and subjects."
            raise InputError(path, "a link file inside the cohort", "a place outside", mend)
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scans, cohort, form = content["scans"], content["cohort"], content["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            mend = "Name another file with --link, or move this one away."
            raise InputError(path, f"no link file ({error!r})", "one that `convert` wrote", mend) from error
        if form != FORMAT or Path(cohort) != out.resolve() or not isinstance(scans, dict):
            mend = "Name another file with --link."
            raise InputError(path, f"the link file of {cohort}", f"that of {out.resolve()}", mend)
        self.scans = scans

    def names(self) -> dict[str, dict[str, str]]:
        """First file of each scan to the names it got, for `name_scans`."""
        return {
            entry["files"][0]: {"subject": entry["subject"], "scan": scan, "source_subject": entry["source_subject"]}
            for scan, entry in self.scans.items()
        }

    def write(self, out: Path) -> None:
        """Write the file, for its owner only."""
        if self.path is None:
            return
        content = {"format": FORMAT, "cohort": str(out.resolve()), "scans": self.scans}
        with replacing(self.path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
