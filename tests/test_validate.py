"""Checks of options, texts of bytes and shapes, and what a class of options says of itself."""

from __future__ import annotations

import pytest

from gpulstm.errors import ConfigError
from gpulstm.validate import parse_shape


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,0", "1,2,3,4,x", "1,2,3,4,5,6", "1, 2, 3, 4, -5"])
def test_a_shape_is_five_whole_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="expected five whole numbers T,B,I,H,L"):
        parse_shape(text)
