"""The side-by-side benchmark from a checkout: `python bench.py` is `gpulstm bench`; how it measures: gpulstm/bench/."""

from __future__ import annotations

import sys

from gpulstm.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
