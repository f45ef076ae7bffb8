from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.convert.names import key_fingerprint, name_scans, pseudonym, read_key, safe_name
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


def named(*sources: Source, key: bytes | None = None) -> list:
    return name_scans(sources, key, {})


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
    known = {"sub-001_scan-1": entry("/2.dcm", "sub-001", "dicom:0815")}
    assert name_scans([first, second, third], None, known, [None, "sub-001_scan-1", None]) == [
        ("sub-002", "sub-002_scan-1"),
        ("sub-001", "sub-001_scan-1"),
        ("sub-002", "sub-002_scan-2"),
    ]


def entry(file: str, subject: str, source_subject: str | None, requested: str | None = None) -> dict:
    return {"files": [file], "subject": subject, "source_subject": source_subject, "requested": requested}


def test_a_corrected_subject_or_name_is_named_anew_and_frees_its_old_name() -> None:
    a = Source("volume", (Path("/a.nii.gz"),), subject="p2", scan="x")
    b = Source("volume", (Path("/b.nii.gz"),), subject="p1", scan="x")
    known = {"p1_x": entry("/a.nii.gz", "p1", "p1", "x"), "p2_x": entry("/b.nii.gz", "p2", "p2", "x")}
    assert name_scans([a, b], None, known, ["p1_x", "p2_x"]) == [("p2", "p2_x"), ("p1", "p1_x")]
    stays = Source("volume", (Path("/b.nii.gz"),), subject="p2", scan="x")
    taken, kept = name_scans([a, stays], None, known, ["p1_x", "p2_x"])
    assert kept == ("p2", "p2_x")
    assert isinstance(taken, InputError)
    assert "the scan name 'p2_x' that b.nii.gz has too" in str(taken)


def test_a_fingerprint_tells_keys_apart_and_gives_none_away() -> None:
    assert key_fingerprint(None) is None
    first, other = key_fingerprint(KEY), key_fingerprint(KEY[::-1])
    assert first != other
    assert len(str(first)) == 16
    assert str(first) not in (KEY.decode(), hashlib.sha256(KEY).hexdigest()[:16])


def test_with_a_key_neither_subject_nor_scan_tells_the_source() -> None:
    source = Source("volume", (Path("/doe.nii.gz"),), subject="Doe", scan="Doe_L4")
    [(subject, scan)] = named(source, key=KEY)
    assert (subject, scan) == (pseudonym("Doe", KEY), f"{pseudonym('Doe', KEY)}_scan-1")
