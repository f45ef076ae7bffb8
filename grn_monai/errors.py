"""One error type for everything a user can mend: it names the place, what was found, what was expected, and how to mend it."""

from __future__ import annotations

from os import PathLike

__all__ = ["InputError"]


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
