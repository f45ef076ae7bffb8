"""What the pages of all reports share: how their templates are read, and the facts of a record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["facts", "file_name", "page_template"]


def page_template(name: str) -> Template:
    """A template of `report/templates`: text is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("grn_monai.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def file_name(path: Any) -> str:
    """The last part of a path; empty for None. A page that is passed on says nothing of the disk it was made on."""
    return re.split(r"[/\\]", str(path).rstrip("/\\"))[-1] if path else ""


def facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of a run's record that a reader looks for first."""
    git = record.get("git") or {}
    changed = git.get("changed_files")
    commit = str(git.get("commit", ""))[:12] + (f" with {changed} changed files" if changed else "")
    seconds = record.get("seconds")
    command = record.get("command", "")
    versions = record.get("versions") or {}
    lines = {
        "status": record.get("status"),
        "seed": record.get("seed"),
        "command": " ".join(map(str, command)) if isinstance(command, list) else command,
        "source": commit,
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items() if number),
        "epochs": record.get("epochs"),
        "iterations": record.get("iterations"),
        "time": None if seconds is None else f"{float(seconds) / 60:.1f} min",
        "machine": ", ".join(
            str(v)
            for v in (
                record.get("platform"),
                record.get("cuda"),
                record.get("threads") and f"{record['threads']} threads",
            )
            if v
        ),
        "started": record.get("started"),
    }
    return [(name, str(value)) for name, value in lines.items() if value not in (None, "")]
