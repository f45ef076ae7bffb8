"""Segment codes: against pydicom's copy of the DICOM lists, and found by any spelling of a name."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts  # the lists themselves; `codes` can only be asked by keyword

from grn_monai.dicom.codes import DEEP, LEFT, LUMBAR_REGION, RIGHT, SEGMENT_CODES, SUPERFICIAL, TISSUE, segment_code
from grn_monai.labels import LAYER_NAMES, LAYERS

SNOMED = {code: meaning for group in concepts["SCT"].values() for code, (meaning, _) in group.items()}
# In SNOMED CT, but on no list of DICOM: taken from other public uses of these codes, not from a release of SNOMED.
UNLISTED = {"67769002", "5709001", "68455001"}


def test_codes_are_those_of_the_dicom_lists() -> None:
    used = {LUMBAR_REGION}
    for code in SEGMENT_CODES.values():
        used |= {code.category, code.type, *code.modifiers}
    used |= {LEFT, RIGHT}
    checked = 0
    for concept in used:
        assert concept.scheme == "SCT"
        if concept.value in UNLISTED:
            continue
        assert any(
            concept.value in group and group[concept.value][0].lower() == concept.meaning.lower()
            for group in concepts["SCT"].values()
        ), concept
        checked += 1
    assert checked == len(used) - len(UNLISTED)


def test_every_layer_has_a_code_and_no_two_the_same() -> None:
    codes = [segment_code(LAYER_NAMES[value]) for value in LAYERS]
    assert len(set(codes)) == len(LAYERS)
    assert codes[1].modifiers == (SUPERFICIAL,)
    assert codes[3].modifiers == (DEEP,)


@pytest.mark.parametrize(
    ("name", "meaning", "side"),
    [
        ("autochthon_left", "Erector spinae muscle", LEFT),
        ("Right erector spinae", "Erector spinae muscle", RIGHT),
        ("iliopsoas-right", "Iliopsoas muscle", RIGHT),
        ("psoas_muscle_l", "Iliopsoas muscle", LEFT),
        ("Multifidus", "Multifidus muscle", None),
        ("muscle", "Skeletal muscle", None),
        ("MUSCLE left", "Skeletal muscle", LEFT),
    ],
)
def test_names_are_found_in_any_spelling(name: str, meaning: str, side: tuple | None) -> None:
    code = segment_code(name)
    assert code.type.meaning == meaning
    assert code.modifiers == (() if side is None else (side,))


def test_an_unknown_name_is_tissue_with_its_side() -> None:
    assert segment_code("nerve root") == (TISSUE, TISSUE, ())
    assert segment_code("nerve_root_left") == (TISSUE, TISSUE, (LEFT,))
