"""Lets pydicom-seg 0.4.1, which MONAI Label imports at its start, be imported beside pydicom 3.

``python -m grn_monai.monailabel.pydicom_names``, once in the environment of MONAI Label. The one thing that pydicom-seg
misses there is the module ``pydicom._storage_sopclass_uids``; its names are in ``pydicom.uid`` now. This project's
readers and highdicom need pydicom 3. Nothing of pydicom-seg is used: segmentations are written by `grn_monai.dicom`.
"""

from __future__ import annotations

from pathlib import Path

from grn_monai.files import write_whole

__all__ = ["add_names"]

_TEXT = '"""For pydicom-seg 0.4.1; added by grn_monai.monailabel.pydicom_names."""\n\nfrom pydicom.uid import *\n'


def add_names() -> Path | None:
    """Adds the module to the installed pydicom where it is missing.

    Returns:
        The file that was written; None: it was there.

    Raises:
        InputError: the installed pydicom cannot be written to.
    """
    import pydicom

    path = Path(pydicom.__file__).parent / "_storage_sopclass_uids.py"
    return None if path.exists() else write_whole(path, _TEXT)


if __name__ == "__main__":
    add_names()
