from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.convert.names import name_scans, pseudonym, read_key, safe_name
from data_prep.convert.source import Source
from grn_monai.errors import InputError

KEY = b"0123456789abcdef0123456789abcdef"


@given(st.text(max_size=200))
def test_a_safe_name_never_leaves_its_folder(text: str) -> None:
    try:
        name = safe_name(text)
    except InputError:
        return
    assert Path("out", name).resolve().parent == Path("out").resolve()
    assert name not in (".", "..")
    assert not name.startswith((".", "-"))
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert len(name) <= 81
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("../../x", "x"),
        ("a/b", "a-b"),
        ("Müller, Hans", "M-ller-Hans"),
        ("s..1", "s-1"),
        ("nul", "nul_"),
        ("a b", "a-b"),
    ],
)
def test_safe_name_of_hostile_and_common_names(text: str, expected: str) -> None:
    assert safe_name(text) == expected


@pytest.mark.parametrize("text", ["", "..", "///", "x" * 81])
def test_names_of_which_nothing_is_left_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        safe_name(text)


def test_a_pseudonym_is_the_hmac_of_the_subject() -> None:
    digest = hmac.new(KEY, b"Jane Doe", hashlib.sha256).digest()
    assert pseudonym("Jane Doe", KEY) == "sub-" + base64.b32encode(digest).decode()[:12]
    assert pseudonym("Jane Doe", KEY) != pseudonym("Jane Doe", KEY[::-1])


def test_a_key_has_to_be_a_secret(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc\n")
    for name, found in (("short", "3 bytes"), ("absent", "no readable file")):
        with pytest.raises(InputError, match=found):
            read_key(tmp_path / name)


def named(*sources: Source, key: bytes | None = None, known: dict | None = None) -> list:
    return name_scans(sources, key, known or {})


def test_names_of_the_source_are_kept() -> None:
    a = Source("volume", (Path("/a.nii.gz"),), subject="s1", scan="s1_left")
    b = Source("volume", (Path("/b.nii.gz"),), subject="s1", scan="right")
    assert named(a, b) == [("s1", "s1_left"), ("s1", "s1_right")]


def test_two_scans_of_one_name_and_two_subjects_that_become_one_are_refused() -> None:
    first = Source("volume", (Path("/a.nii.gz"),), subject="a b", scan="x")
    again = Source("volume", (Path("/b.nii.gz"),), subject="a b", scan="x")
    other = Source("volume", (Path("/c.nii.gz"),), subject="a-b", scan="y")
    good, twice, alike = named(first, again, other)
    assert good == ("a-b", "a-b_x")
    assert isinstance(twice, InputError)
    assert "a.nii.gz" in str(twice)
    assert isinstance(alike, InputError)
    assert "'a b'" in str(alike)


def test_dicom_subjects_are_numbered_and_stay_so_in_a_later_run() -> None:
    first = Source("dicom-us", (Path("/1.dcm"),), subject="dicom:4711")
    second = Source("dicom-us", (Path("/2.dcm"),), subject="dicom:0815")
    third = Source("dicom-us", (Path("/3.dcm"),), subject="dicom:4711")
    assert named(first, second, third) == [
        ("sub-001", "sub-001_scan-1"),
        ("sub-002", "sub-002_scan-1"),
        ("sub-001", "sub-001_scan-2"),
    ]
    known = {"/2.dcm": {"subject": "sub-001", "scan": "sub-001_scan-1", "source_subject": "dicom:0815"}}
    assert named(first, second, third, known=known) == [
        ("sub-002", "sub-002_scan-1"),
        ("sub-001", "sub-001_scan-1"),
        ("sub-002", "sub-002_scan-2"),
    ]


def test_with_a_key_neither_subject_nor_scan_tells_the_source() -> None:
    source = Source("volume", (Path("/doe.nii.gz"),), subject="Doe", scan="Doe_L4")
    [(subject, scan)] = named(source, key=KEY)
    assert (subject, scan) == (pseudonym("Doe", KEY), f"{pseudonym('Doe', KEY)}_scan-1")
