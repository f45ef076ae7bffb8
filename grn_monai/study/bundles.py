"""What a study has to know of a bundle: its configs, and the ids in them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from grn_monai.study.read import Place, close_names

__all__ = ["Bundle"]

_NO_OVERLAYS = {"train", "evaluate", "inference"}


@functools.cache
def _content(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


class Bundle:
    """A bundle's folder.

    Args:
        folder: the folder, with `configs/train.yaml` and `configs/evaluate.yaml`.
        place: where the study names the bundle.

    Raises:
        InputError: there is no such bundle.
    """

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        if not (folder / "configs" / "train.yaml").is_file():
            others = [p.parents[1].name for p in sorted(folder.parent.glob("*/configs/train.yaml"))]
            found = f"{folder.name!r}, which is no bundle in {folder.parent}"
            raise place.error(found, "a folder with configs/train.yaml", close_names(folder.name, others))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def has_sge(self) -> bool:
        """Whether scans can be segmented through a generator, S(G(x))."""
        return "no_sge" in self.configs

    @property
    def configs(self) -> list[str]:
        """Names of the configs, without their ending."""
        return sorted(p.stem for p in (self.folder / "configs").glob("*.yaml"))

    def check_overlays(self, names: Iterable[str], place: Place) -> None:
        """Refuse overlays that the bundle does not have.

        Raises:
            InputError: naming the nearest.
        """
        known = [name for name in self.configs if name not in _NO_OVERLAYS]
        for name in names:
            if name not in known:
                found = f"{name!r}, which is no overlay of {self.name}"
                raise place.error(found, f"a config in {self.name}/configs", close_names(name, known))

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """Ids and their values as the configs give them, one over the other; `a#b` and `+a` stay as they are."""
        result: dict[str, Any] = {}
        for name in names:
            result |= _content(self.folder / "configs" / f"{name}.yaml")
        return result

    def ids(self, names: Iterable[str]) -> set[str]:
        """Top-level ids of configs: what `--id value` can set. Any other would be added, and used by nothing."""
        return {str(key).lstrip("+~").replace("::", "#").split("#")[0] for key in self.values(names)}
