"""Whole files, and errors a user can mend."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from grn_monai.errors import InputError, find_input_error
from grn_monai.files import make_folder, replacing, write_whole


def test_replacing_makes_the_folder_and_leaves_no_other_file(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.nii.gz"
    with replacing(target) as temporary:
        assert temporary.name.endswith("b.nii.gz")
        assert temporary.parent == target.parent
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_after_an_error_the_old_file_stays(tmp_path: Path) -> None:
    target = write_whole(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="boom"), replacing(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("boom")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_text_and_bytes(tmp_path: Path) -> None:
    assert write_whole(tmp_path / "t", "ß").read_bytes() == "ß".encode()
    assert write_whole(tmp_path / "b", b"\x00").read_bytes() == b"\x00"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x: found that writing fails .*choose another output folder"):
        write_whole(tmp_path / "file" / "x", "")
    with pytest.raises(InputError, match="cannot be written to"):
        make_folder(tmp_path / "file" / "x")


def test_error_message_pickles_and_is_found_in_a_chain() -> None:
    error = InputError("scan.mha", "an empty file", "a volume", "Export it again.")
    assert str(error) == "scan.mha: found an empty file; expected a volume. Export it again."
    again = pickle.loads(pickle.dumps(error))
    assert (again.where, again.mend, str(again)) == (error.where, error.mend, str(error))
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    assert find_input_error(wrapped) is error
    assert find_input_error(ValueError("other")) is None


class BadItem:
    """A dataset whose item is at fault, as it is or wrapped by a transform."""

    def __init__(self, wrapped: bool) -> None:
        self.wrapped = wrapped

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        error = InputError("scan.mha", "an empty file", "a volume", "Export it again.")
        if self.wrapped:
            raise RuntimeError("applying transform") from error
        raise error


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_in_a_loader_worker_is_found(wrapped: bool) -> None:
    with pytest.raises(RuntimeError) as info:
        list(DataLoader(BadItem(wrapped), num_workers=1))  # type: ignore[arg-type]
    assert str(find_input_error(info.value)) == ("scan.mha: found an empty file; expected a volume. Export it again.")


@pytest.mark.parametrize(
    ("statement", "last_line", "traceback"),
    [
        ("raise InputError('a', 'b', 'c', 'd')", "error: a: found b; expected c. d", False),
        ("raise ValueError('other')", "ValueError: other", True),
    ],
)
def test_a_process_ends_on_the_message_alone(statement: str, last_line: str, traceback: bool) -> None:
    code = f"from grn_monai.errors import *\nreport_input_errors()\n{statement}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == last_line
    assert ("Traceback" in done.stderr) == traceback
