"""Where the tests find the checkout, the recorded values and the programs that they start."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKOUT = TESTS.parent
GOLDEN_FOLDER = TESTS / "golden"
DOCS = CHECKOUT / "docs"
TOOLS = CHECKOUT / "tools"
CUDA_PROGRAMS = TESTS / "engines" / "cuda" / "programs"
