"""The text of kernels: each header once, macros first, and no include left for a compiler without a path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gpulstm.arrays.kernel_source as kernel_source_module
from gpulstm.arrays.kernel_source import digest, kernel_folder, kernel_preamble, kernel_source, module_source


def test_a_preamble_holds_each_header_once() -> None:
    text = kernel_preamble(("cuda/state.cuh",))
    assert '#include "' not in text
    assert text.count("#define GPULSTM_INLINE_H") == text.count("#define GPULSTM_GATES_H") == 1


def test_macros_stand_before_the_text_that_they_change() -> None:
    text = module_source("cuda/fused.cu", (("GL_CELL", "0"), ("GL_T", "float")))
    assert text.startswith("#define GL_CELL 0\n#define GL_T float\n")
    half = module_source("cuda/fused.cu", (("GL_T", "__half"),))
    assert half.startswith("#include <cuda_fp16.h>\n#define GL_T __half\n")
    bfloat = module_source("cuda/fused.cu", (("GL_T", "__nv_bfloat16"),))
    assert bfloat.startswith("#include <cuda_bf16.h>\n#define GL_BFLOAT\n#define GL_T __nv_bfloat16\n")


def test_no_include_of_our_own_is_left() -> None:
    for path in (kernel_folder() / "cuda").glob("*.cu"):
        name = str(path.relative_to(kernel_folder()))
        assert not re.findall(r'^#include ".*"', module_source(name, ()), re.MULTILINE), name


def test_a_file_is_its_text() -> None:
    assert kernel_source("equations/gates.h") == (kernel_folder() / "equations" / "gates.h").read_text()


def test_the_digest_changes_with_any_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for name in ("cuda", "equations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.h").write_text("// one")
    monkeypatch.setattr(kernel_source_module, "kernel_folder", lambda: tmp_path)
    for name, text in (("cuda", "// one"), ("cuda", "// two"), ("equations", "// two")):
        (tmp_path / name / "a.h").write_text(text)
        seen.add(digest.__wrapped__())
    assert len(seen) == 3
