"""A product by cuBLAS a step, then one kernel for gates and cell."""

from __future__ import annotations

import cuda_forms
import pytest


@pytest.mark.cuda
@pytest.mark.parametrize("case", list(cuda_forms.cases("first")), ids=str)
def test_it_equals_the_reference_and_repeats_bit_for_bit(case: cuda_forms.Case) -> None:
    cuda_forms.check(case)
