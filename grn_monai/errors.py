"""One error type for everything a user can mend: it names the place, what was found and expected, and the mend."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from os import PathLike
from types import TracebackType

__all__ = ["InputError", "count_scans", "find_input_error", "listed", "report_input_errors"]


_LISTED = 10


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first ten, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def count_scans(count: int) -> str:
    """``"1 scan"``, ``"2 scans"``."""
    return "1 scan" if count == 1 else f"{count} scans"


class InputError(ValueError):
    """Raised for input that the user can mend.

    Args:
        where: the file, folder or option at fault.
        found: what is there.
        expected: what should be there.
        mend: what to do about it.
    """

    def __init__(self, where: str | PathLike[str], found: str, expected: str, mend: str) -> None:
        self.where, self.found, self.expected, self.mend = str(where), found, expected, mend
        super().__init__(f"{self.where}: found {found}; expected {expected}. {mend}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        # The default would rebuild the error from the joined message; DataLoader workers send errors pickled.
        return type(self), (self.where, self.found, self.expected, self.mend)


# As a DataLoader worker quotes it: torch makes one text of the traceback and raises that.
_QUOTED = re.compile(r"InputError: (?P<where>.*?): found (?P<found>.*?); expected (?P<expected>.*?)\. (?P<mend>.*)")


def find_input_error(error: BaseException | None) -> InputError | None:
    """The ``InputError`` at the root of an error that MONAI, or a DataLoader worker, has wrapped, or None."""
    while error is not None:
        if isinstance(error, InputError):
            return error
        if "DataLoader worker" in str(error) and (quoted := _QUOTED.search(str(error))):
            return InputError(**quoted.groupdict())
        error = error.__cause__ or error.__context__
    return None


def report_input_errors() -> None:
    """Let this process end on an ``InputError`` with its message alone (exit code 1), without a traceback.

    The bundles call it first, since ``monai.bundle`` shows every error as a long chain. Other errors keep their
    traceback.
    """
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        cause = find_input_error(error)
        if cause is None:
            previous(kind, error, traceback)
        else:
            print(f"error: {cause}", file=sys.stderr)

    sys.excepthook = hook
