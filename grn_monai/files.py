"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from grn_monai.errors import InputError

__all__ = ["clear_leftovers", "file_stamps", "make_folder", "replacing", "write_whole"]


_TEMPORARY = re.compile(r"\.[0-9a-f]{32}-")


def make_folder(path: str | os.PathLike[str]) -> None:
    """Create a folder and see that files can be written there.

    Raises:
        InputError: it cannot be created or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        found = f"a place that cannot be written to ({error.strerror})"
        raise InputError(path, found, "a folder you may write to", "Choose another folder.") from error


def file_stamps(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Time of change (ns) and size of a volume's files: the one named and, of an ``.mhd``, the voxels beside it.

    Of a folder (a DICOM series): those of the files in it, by name.

    Raises:
        InputError: there is no such file.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(source, "no such file", "a volume", "Check the path.")
    if source.is_dir():
        inside = [p.stat() for p in sorted(source.iterdir()) if p.is_file()]
        return [(stat.st_mtime_ns, stat.st_size) for stat in inside]
    voxels = (source.with_suffix(".raw"), source.with_suffix(".zraw"))
    stats = [p.stat() for p in (source, *voxels) if p.exists()]
    return [(stat.st_mtime_ns, stat.st_size) for stat in stats]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write to the temporary name that this yields; at the end it is renamed to ``path``.

    The temporary file lies in the same folder (made if missing) and keeps the endings of the name, by which some
    writers choose the format. After an error or a kill, the old file or none is there, never half a new one.

    Raises:
        InputError: the file cannot be written there.
    """
    target = Path(path)
    temporary = target.with_name(f".{uuid.uuid4().hex}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        mend = "Free space on the disk, or choose another output folder."
        raise InputError(target, f"that writing fails ({error})", "a writable folder with free space", mend) from error
    finally:
        with contextlib.suppress(OSError):  # where the folder itself is at fault, the error of the writing says so
            temporary.unlink(missing_ok=True)


def clear_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that a killed process left in a folder; nobody else may be writing there."""
    for path in Path(folder).glob(".*"):
        if _TEMPORARY.match(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write text (UTF-8) or bytes, whole or not at all, and return the path."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return Path(path)
