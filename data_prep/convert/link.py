"""The private file that tells which scan of a cohort came from which files; it stays outside the cohort."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from data_prep.convert.discover import kind_of
from data_prep.convert.source import Source
from grn_monai.data.readers.raw import sidecars
from grn_monai.dicom.folders import LINK_FORMAT
from grn_monai.errors import InputError
from grn_monai.files import file_stamps, replacing

__all__ = ["Link", "default_link", "link_entry", "scan_paths", "sources_changed"]

Entry = dict[str, Any]


def scan_paths(out: Path, scan: str) -> tuple[Path, Path]:
    """Image and label of a scan in a cohort."""
    return out / "images" / f"{scan}.nii.gz", out / "labels" / f"{scan}.nii.gz"


def default_link(out: Path) -> Path:
    """``OUT.link.json`` beside the cohort's folder, never inside it.

    Raises:
        InputError: the folder is the root of a file system, which has no place beside it.
    """
    named = out if out.name not in ("", "..") else out.resolve()
    if not named.name:
        raise InputError(out, "the root of a file system", "a folder", "Give OUT another place.")
    return named.with_name(named.name + ".link.json")


class Link:
    """Reads, keeps and writes a link file.

    Its ``scans`` map each scan's name to what `link_entry` gives and, once it is converted, to ``record``, ``shape``,
    ``affine``, ``placement`` and ``private``. ``pending`` marks a scan that is being converted again.

    Args:
        path: the file; read if it exists. None keeps everything in memory only.
        out: the cohort's folder.

    Raises:
        InputError: the file lies inside the cohort, is no link file, or that of another cohort; or the cohort was
            begun, and there is no link file.
    """

    def __init__(self, path: Path | None, out: Path) -> None:
        self.path, self.out = path, out
        self.scans: dict[str, Entry] = {}
        self.labels: dict[int, str] = {}
        if path is not None and path.resolve().is_relative_to(out.resolve()):
            mend = "Put it beside the cohort: it names source files and subjects."
            raise InputError(path, "a link file inside the cohort", "a place outside", mend)
        if path is not None and path.exists():
            self.scans = _read(path, out)
        elif next((out / "images").glob("*.nii.gz"), None) is not None:
            # Without it nothing tells whose scans these are: numbers given out anew would mix them.
            mend = "Give its link file with --link, or choose another OUT."
            raise InputError(out, "a cohort that was begun, but no link file of it", "both, to add to it", mend)

    def converted(self) -> dict[str, Entry]:
        """The scans whose image is there."""
        return {
            scan: entry
            for scan, entry in self.scans.items()
            if entry["record"] is not None and scan_paths(self.out, scan)[0].is_file()
        }

    def check_key(self, fingerprint: str | None) -> None:
        """Raise unless all scans of the cohort were named under this key, or all without one.

        Scans that are not there are forgotten if they were named otherwise.
        """
        for entry in self.converted().values():
            if entry.get("key") != fingerprint:
                before = "without a pseudonym key" if entry.get("key") is None else "under a pseudonym key"
                now = "none is given" if fingerprint is None else "another one is given"
                mend = "Give the key of before, or convert all scans into another OUT."
                found = f"a cohort whose scans were named {before}, while now {now}"
                raise InputError(self.out, found, "the same for all scans of a cohort", mend)
        self.scans = {scan: entry for scan, entry in self.scans.items() if entry.get("key") == fingerprint}

    def earlier(self, sources: Sequence[Source]) -> list[str | None]:
        """For each source the scan of an earlier run that it was, or None.

        It is the same part of the same file; or, under the same subject and name, another part of it that takes its
        place; or the same file moved (gone from its place, of the same size and time).
        """
        found: list[str | None] = [None] * len(sources)

        def match(of_entry: Callable[[Entry], Hashable], of_source: Callable[[Source], Hashable], check: bool) -> None:
            left: dict[Hashable, list[str]] = {}
            taken = set(found)
            for scan, entry in self.scans.items():
                if scan not in taken and (entry["record"] is not None or not check):
                    left.setdefault(of_entry(entry), []).append(scan)
            for i, source in enumerate(sources):
                if found[i] is None:
                    scans = left.get(of_source(source), [])
                    fits = [scan for scan in scans if not check or _takes_its_place(source, self.scans[scan])]
                    if fits:
                        found[i] = fits[0]
                        scans.remove(fits[0])

        match(lambda e: (_identity(e), _asked(e)), lambda s: (s.identity, (s.subject, s.scan)), False)
        match(_identity, lambda s: s.identity, False)
        match(_asked, lambda s: (s.subject, s.scan), True)
        return found

    def write(self) -> None:
        """Write the file, for its owner only."""
        if self.path is None:
            return
        labels = {str(value): name for value, name in self.labels.items()}
        content = {"format": LINK_FORMAT, "cohort": str(self.out.resolve()), "labels": labels, "scans": self.scans}
        with replacing(self.path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(path: Path, out: Path) -> dict[str, Entry]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scans, cohort, form = content["scans"], content["cohort"], content["format"]
        for entry in scans.values():
            if not entry["files"] or {"subject", "source_subject", "section", "record"} - set(entry):
                raise ValueError("a scan without its entries")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        mend = "Name another file with --link, or move this one away."
        raise InputError(path, f"no link file ({error!r})", "one that `convert` wrote", mend) from error
    if form != LINK_FORMAT or Path(cohort) != out.resolve():
        mend = "Name another file with --link."
        raise InputError(path, f"the link file of {cohort}", f"that of {out.resolve()}", mend)
    return dict(scans)


def _identity(entry: Entry) -> str:
    return f"{entry['files'][0]} {entry.get('part', '{}')}"


def _asked(entry: Entry) -> tuple[str | None, str | None]:
    return entry["source_subject"], entry.get("requested")


def _takes_its_place(source: Source, entry: Entry) -> bool:
    """Whether a source of the same subject and name is another part of the same file, or the same file moved."""
    if entry["files"][0] == str(source.files[0].resolve()):
        return source.scan is not None  # parts that are numbered only may stand side by side
    moved = entry.get("part") == source.part and not any(Path(file).exists() for file in entry["files"])
    stamps = entry.get("stamps")
    return moved and isinstance(stamps, dict) and list(stamps.values()) == list(_stamps(source).values())


def link_entry(source: Source, subject: str, image: Path, fingerprint: str | None) -> Entry:
    """What the link file tells of a scan before it is converted.

    Returns:
        ``subject``, ``source_subject``, ``requested`` (name of the scan as the source has it), ``key`` (fingerprint of
        the pseudonym key), ``kind``, ``files`` and ``image`` (absolute, resolved), ``part`` (of the file), ``section``,
        ``keys``, ``modality``, ``described`` (all that decides what is written) and ``stamps`` (each file to times of
        change and sizes; no entries for a file that is not there).
    """
    described = json.loads(json.dumps(source.described()))
    files, labels = ([str(path.resolve()) for path in paths] for paths in (source.files, source.labels))
    return {
        "subject": subject,
        "source_subject": source.subject,
        "requested": source.scan,
        "key": fingerprint,
        "kind": source.kind,
        "files": files,
        "part": source.part,
        "image": str(image.resolve()),
        "section": source.section,
        "keys": source.keys,
        "modality": source.modality,
        "described": {**described, "files": files, "labels": labels},
        "stamps": _stamps(source),
    }


def _stamps(source: Source) -> dict[str, list[list[int]]]:
    """Every file that decides about a scan, with those beside it: voxels of an .mhd, description of raw voxels."""
    raw = [*(source.files if source.kind == "raw" else ()), *(p for p in source.labels if kind_of(p) == "raw")]
    beside = [sidecar for path in raw for sidecar in sidecars(path) if sidecar.exists()]
    paths = [*source.files, *source.labels, *beside]
    return {str(path.resolve()): [list(s) for s in file_stamps(path)] if path.exists() else [] for path in paths}


def sources_changed(before: Entry, now: Entry) -> bool:
    """Whether a file that both states of a scan were read from has changed; one that is gone has not."""
    old, new = before.get("stamps"), now["stamps"]
    if not isinstance(old, dict):
        return True
    return any(new[path] and new[path] != stamps for path, stamps in old.items() if path in new)
