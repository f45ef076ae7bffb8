"""The papers' values that could be read: where they stand, what is missing, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grn_monai.networks import PatchDiscriminator, ResNetGenerator
from grn_monai.report.study.printed import (
    abstracts,
    printed_complexity,
    printed_dice,
    printed_effect,
    printed_notes,
)
from grn_monai.study import load_plan


def printed(*where: Any, **mode: str) -> float | None:
    found = printed_dice(*where, **mode)
    return found and found.value


def printed_source(*where: Any) -> str | None:
    found = printed_dice(*where)
    return found and found.source


def test_a_value_is_that_of_its_table() -> None:
    assert printed("GRN Table 4", "unet", 0.05) == 43.97
    assert printed("GRN Table 6", "unet", 0.05) == 40.02  # validation images
    assert printed("GRN", "unet", 0.05) == 43.97
    assert printed("GRN Table 5", "unet", 0.05) is None
    assert printed("GRN+ Table 3", "unet", 1.0) == 80.62
    assert printed("GRN+ Table 3", "unet", 0.05) is None


def test_modes_and_layers_are_told_apart() -> None:
    assert printed("GRN Table 6", "grn_sel", 0.05) == 57.12
    assert printed("GRN Table 6", "grn_sel", 0.05, mode="sge") == 57.30
    assert printed("GRN Table 6", "grn_ssl", 0.05) is None
    assert printed("GRN Table 2", "unet", 0.05, "superficial_fat") == 0.67
    assert printed("GRN Table 2", "unet", 0.05, "superficial fat") == 0.67
    assert printed("GRN Table 6", "unet", 0.05, "superficial fat") is None
    assert printed("GRN Table 2", "unet", 0.05, "mean") == printed("GRN Table 2", "unet", 0.05)


def test_what_was_not_read_is_none_and_never_guessed() -> None:
    for method in ("mean_teacher", "uamt", "urpc", "sassnet", "r_drop", "ict", "dan"):
        assert printed("GRN Table 2", method, 0.05) is None


@pytest.mark.parametrize("table", ["GRN++ Table 2", "Table 2", "GRN Table two", ""])
def test_an_unknown_table_is_an_error(table: str) -> None:
    with pytest.raises(ValueError, match="GRN Table 2"):
        printed(table, "unet", 0.05)


def test_the_source_of_a_value_is_named() -> None:
    assert printed_source("GRN", "grn_sel", 0.05) == "GRN Table 6"
    assert printed_source("GRN Table 3", "unet", 0.05, "dermis") == "GRN Tables 2 or 3"
    assert printed_source("GRN Table 3", "unet", 0.4) is None


def test_effects_and_the_misprints_of_their_table() -> None:
    assert printed_effect("raug", 0.3) == (0.38, "GRN Table 5", ("Table 4 gives −0.66",))
    assert printed_effect("raug", 0.05) is None
    assert len(printed_notes("GRN Table 5")) == 2
    assert any("40 %" in note for note in printed_notes("GRN Table 5"))
    assert any("69.91" in note for note in printed_notes("GRN+ Table 3"))
    assert not set(printed_notes("GRN")) & set(printed_notes("GRN+"))


def test_complexity_as_printed() -> None:
    rows = printed_complexity()
    assert rows["unet"] == {"row": "Unet", "parameters": 661_727, "train_seconds": 0.007}
    assert rows["deeplabv3"]["row"] == "Deeplabv3plus"
    assert 1 - rows["grn_plus"]["train_seconds"] / rows["grn_ssl"]["train_seconds"] == pytest.approx(0.282, abs=5e-4)
    rows["unet"]["row"] = "changed"
    assert printed_complexity()["unet"]["row"] == "Unet"


def test_printed_parameters_of_generator_and_discriminator_fit_no_network_here() -> None:
    rows = printed_complexity()
    count = sum(p.numel() for p in ResNetGenerator(base_channels=64).parameters())
    assert count == 37_089_025
    assert any(f"{count:,}" in note for note in printed_notes("GRN+ Table 4"))
    assert rows["generator"]["parameters"] != count
    assert rows["discriminator"]["parameters"] != sum(p.numel() for p in PatchDiscriminator().parameters())


def test_the_abstracts_results() -> None:
    assert set(abstracts()) == {"GRN", "GRN+"}
    assert "1.98" in abstracts()["GRN"]
    assert "2.16" in abstracts()["GRN+"]


def test_a_known_misprint_says_so_beside_its_value() -> None:
    found = printed_dice("GRN+ Table 3", "unet", 1.0)
    assert found == (80.62, "GRN+ Table 3", ("its layers average 69.91",))
    assert printed_dice("GRN+ Table 2", "grn_plus", 0.1) == (71.35, "GRN+ Table 2", ())


@pytest.mark.parametrize("study", ["laptop", "papers"])
def test_the_studies_set_each_reading_of_grn_sel_beside_its_own_row(study: str) -> None:
    """Freeze S, 48.56, is `alternate`, the default; 57.12 goes with the text, where S steps on the loss of G too."""
    plan = load_plan(Path(__file__).parents[3] / f"studies/{study}.yaml")
    found = {}
    for method in plan.methods:
        if (value := printed("GRN Table 6", method.printed, 0.05)) is not None:
            found[method.key] = value
    assert found["grn_sel"] == 48.56
    assert found["grn_sel_joint"] == 57.12
    options = {method.key: method.options.get("segmentor_update") for method in plan.methods}
    assert options["grn_sel"] in (None, "alternate")
    assert options["grn_sel_joint"] == "joint"
    assert found["unet"] == 40.02
    assert any("57.12" in note and "48.56" in note for note in printed_notes("GRN Table 6"))
