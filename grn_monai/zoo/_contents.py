"""Which files of a bundle's folder go into a pack, and what must not: links, and paths of somebody's own machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError, listed
from grn_monai.zoo._configs import config_file, read_config

__all__ = ["REQUIRED", "check_local_paths", "contents"]

REQUIRED = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.yaml",
    "configs/evaluate.yaml",
    "configs/inference.yaml",
    "configs/multi_gpu_train.yaml",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)
"""What a bundle of the zoo holds beside its weights; a ``.yaml`` may be the same as ``.json``."""
OVERLAYS = frozenset(
    {"augment", "freeze_segmentor", "gan_augment", "negated_seg_feedback", "no_seg_feedback", "no_sge", "single_stage"}
)
"""Configs of the project's bundles beside the required ones; another has to be named in the page."""
_PICTURES = frozenset({".gif", ".jpeg", ".jpg", ".png", ".svg"})
_DRIVE = r"~/|~\w+/|[A-Za-z]:[\\/]|\\\\|file:"
_ROOTS = re.compile(r"/(?:data|home|media|mnt|opt|private|root|scratch|srv|tmp|Users|usr|var|Volumes)/")
_LOCAL = re.compile(rf"\s*(?:/|{_DRIVE})")
_QUOTED = re.compile(rf"""(?P<before>[^'"]*)['"](?P<path>(?:/|{_DRIVE})[^'"]*)['"]""")


def contents(bundle: Path) -> tuple[list[str], list[str]]:
    """Names (relative, with ``/``) of the files that a pack takes, and of those that it leaves behind.

    Taken are the required files, the project's overlays and configs that the page names by their file, and pictures
    in ``docs`` that it names.

    Raises:
        InputError: a required file is missing, or what would be taken is a symbolic link or lies behind one.
    """
    needed = []
    for name in REQUIRED:
        file = config_file(bundle, Path(name).stem) if name.endswith(".yaml") else bundle / name
        if not file.is_file():
            raise InputError(bundle, f"no {name}", "a bundle with all files of the zoo's", "Add the file.")
        needed.append(file.relative_to(bundle).as_posix())
    page = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[\w.-]+", page))
    taken: list[str] = list(needed)
    left: list[str] = []
    for part in ("configs", "docs"):
        for path in sorted((bundle / part).rglob("*")):
            name = path.relative_to(bundle).as_posix()
            if name in needed or (path.is_dir() and not path.is_symlink()):
                continue
            flat, ending = path.parent == bundle / part, path.suffix.lower()
            known = path.name in words or (path.stem in OVERLAYS and part == "configs")
            endings = {".yaml", ".json", ".conf"} if part == "configs" else _PICTURES
            (taken if flat and known and ending in endings else left).append(name)
    links = [n for n in ("configs", "docs", *sorted(taken)) if (bundle / n).is_symlink()]
    if links:
        mend = "Put the file itself there: a pack does not follow links."
        raise InputError(bundle, f"symbolic links ({listed(links)})", "files", mend)
    return sorted(taken), left


def _texts(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a config, with its id."""
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts(child, f"{place}#{key}" if place else str(key))
    elif isinstance(node, str):
        yield place, node


def _local_path(text: str) -> str | None:
    """The absolute path of a value, or of a literal in an expression that is not put behind another path."""
    if not text.startswith("$"):
        return text if _LOCAL.match(text) else None
    for found in _QUOTED.finditer(text):
        path, before = found["path"], text[: found.start("path") - 1]
        # `@bundle_root + '/models'` and `@root + ('/a/b.pt' if … else '/c/d.pt')` are relative to what comes before.
        behind = "+" in before if _ROOTS.match(path) is None else re.search(r"\+[\s(]*$", before) is not None
        if not path.startswith("/") or (path.count("/") > 1 and not behind):
            return path
    return None


def check_local_paths(folder: Path, names: list[str]) -> None:
    """Refuse configs with a path of this machine: it tells who packed, and serves nobody else.

    Raises:
        InputError: a value in a config or the metadata, or a line of ``logging.conf``, names such a path.
    """
    mend = "Put it below @bundle_root, or leave it to the command line."
    for name in names:
        if not name.startswith("configs/"):
            continue
        file = folder / name
        if file.suffix == ".conf":
            lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
            pairs = [(f"line {n}", value) for n, line in lines for value in ("$" + line, line.partition("=")[2])]
        else:
            pairs = list(_texts(read_config(file)))
        for place, text in pairs:
            if (path := _local_path(text)) is not None:
                raise InputError(file.name, f"{place}: {path!r}", "no path of one machine", mend)
