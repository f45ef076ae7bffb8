"""Names under which scans enter a cohort: safe as file names, and pseudonyms where they have to be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.convert.source import Source
from grn_monai.errors import InputError

__all__ = ["key_fingerprint", "name_scans", "pseudonym", "read_key", "safe_name"]

_LONGEST = 80
_SHORTEST_KEY = 16


def safe_name(text: str) -> str:
    """A name as a file name: letters, digits, dot, underscore and hyphen only, so that it cannot leave its folder.

    ``../../x`` becomes ``x``. Reserved names of Windows get an underscore.

    Raises:
        InputError: nothing is left, or more than 80 characters.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("-._ ")
    name = re.sub(r"-?\.{2,}-?", "-", name)
    if re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name):
        name = f"{name}_"
    if not name:
        mend = "Give subject and scan names in a --table."
        raise InputError("name of a scan or subject", repr(text)[:80], "letters or digits in it", mend)
    if len(name) > _LONGEST:
        mend = "Give a shorter name in a --table."
        raise InputError("name of a scan or subject", f"{len(name)} characters", f"up to {_LONGEST}", mend)
    return name


def read_key(path: Path) -> bytes:
    """The secret of the pseudonyms.

    Raises:
        InputError: there is no such file, or it is too short to be a secret.
    """
    make = 'Make one with `python -c "import secrets; print(secrets.token_hex(32))" > FILE`, and keep it apart.'
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a file with a secret", make) from error
    if len(key) < _SHORTEST_KEY:
        raise InputError(path, f"{len(key)} bytes", f"at least {_SHORTEST_KEY}", make)
    return key


def pseudonym(subject: str, key: bytes) -> str:
    """A subject's pseudonym: the same for the same subject and key, and not to be undone without the key.

    HMAC-SHA-256, of which 60 bits are kept: among a million subjects, two share one with a probability of 4·10⁻⁷.
    """
    digest = hmac.new(key, subject.encode("utf-8"), hashlib.sha256).digest()
    return "sub-" + base64.b32encode(digest)[:12].decode("ascii")


def key_fingerprint(key: bytes | None) -> str | None:
    """What tells one secret from another without giving it away; None without a key."""
    return None if key is None else hmac.new(key, b"grn-monai key fingerprint", hashlib.sha256).hexdigest()[:16]


def name_scans(
    sources: Sequence[Source],
    key: bytes | None,
    known: Mapping[str, Mapping[str, Any]],
    earlier: Sequence[str | None] | None = None,
) -> list[tuple[str, str] | InputError]:
    """Subject and scan of each source as the cohort will name them.

    Names that the source gives are kept, made safe; with a key subjects become pseudonyms and scans are numbered.
    Subjects that are known by a DICOM attribute alone (`Source.subject` begins with ``dicom:``) are numbered, since no
    attribute may reach the cohort.

    Args:
        sources: in the order in which numbers are given out.
        key: secret of the pseudonyms, or None.
        known: what an earlier run gave out: scan to its entry of the link file, of which ``subject``,
            ``source_subject``, ``requested`` and ``files`` are used.
        earlier: for each source the scan of `known` that it was; None: it is new.

    Returns:
        For each source its subject and scan, or the error that keeps it out. A scan keeps its names unless its subject
        or the name asked for has changed: then it is named anew, and its old name is free.
    """
    earlier = earlier or [None] * len(sources)
    kept = [
        scan if scan is not None and _asks_the_same(source, known[scan]) else None
        for source, scan in zip(sources, earlier, strict=True)
    ]
    given_up = set(earlier) - set(kept)
    stay = {scan: entry for scan, entry in known.items() if scan not in given_up}
    subjects = {_known_origin(entry): str(entry["subject"]) for entry in stay.values()}
    taken: dict[str, str] = {scan: str(entry["files"][0]) for scan, entry in stay.items()}
    taken_subjects = {subject: origin for origin, subject in subjects.items()}
    names: list[tuple[str, str] | InputError] = []
    for source, old in zip(sources, kept, strict=True):
        if old is not None:
            names.append((known[old]["subject"], old))
            continue
        try:
            subject = _subject(source, key, subjects, taken_subjects)
            scan = _scan(source, subject, key, taken)
        except InputError as error:
            names.append(error)
            continue
        taken[scan] = str(source.files[0])
        names.append((subject, scan))
    return names


def _asks_the_same(source: Source, entry: Mapping[str, Any]) -> bool:
    return entry["source_subject"] == source.subject and entry.get("requested") == source.scan


def _origin(source: Source) -> str:
    """What tells subjects apart: the source's own name for them, else the scan itself."""
    return source.subject if source.subject is not None else source.scan or source.files[0].name


def _known_origin(entry: Mapping[str, Any]) -> str:
    if entry["source_subject"] is not None:
        return str(entry["source_subject"])
    return str(entry.get("requested") or Path(entry["files"][0]).name)


def _subject(source: Source, key: bytes | None, subjects: dict[str, str], taken: dict[str, str]) -> str:
    origin = _origin(source)
    if origin in subjects:
        return subjects[origin]
    if key is not None:
        name = pseudonym(origin, key)
    elif origin.startswith("dicom:"):
        number = next(n for n in range(1, len(taken) + 2) if f"sub-{n:03d}" not in taken)
        name = f"sub-{number:03d}"
    else:
        name = safe_name(origin)
    if name in taken:
        mend = "Give different names in a --table."
        found = f"the subject name {name!r} that another subject ({taken[name]!r}) has too"
        raise InputError(source.files[0], found, "one name for each subject", mend)
    subjects[origin], taken[name] = name, origin
    return name


def _scan(source: Source, subject: str, key: bytes | None, taken: Mapping[str, str]) -> str:
    if key is None and source.scan is not None:
        name = safe_name(source.scan)
        name = name if name.startswith(subject) else f"{subject}_{name}"
        if name in taken:
            mend = "Give each scan a name of its own in a --table."
            found = f"the scan name {name!r} that {Path(taken[name]).name} has too"
            raise InputError(source.files[0], found, "one name for each scan", mend)
        return name
    return next(name for n in range(1, len(taken) + 2) if (name := f"{subject}_scan-{n}") not in taken)
