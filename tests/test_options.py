"""Switches as a command line gives them."""

from __future__ import annotations

from typing import Any

import pytest

from grn_monai.errors import InputError
from grn_monai.options import flag


@pytest.mark.parametrize("value", [True, "true", "True", "yes", "on", 1, "1"])
def test_on(value: Any) -> None:
    assert flag(value) is True


@pytest.mark.parametrize("value", [False, "false", "FALSE", "no", "off", 0, "0"])
def test_off(value: Any) -> None:
    assert flag(value) is False


@pytest.mark.parametrize("value", ["maybe", "", None, 2])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="true or false"):
        flag(value)
