"""The gallery: each script runs and leaves its picture, as do page and notebook that are made of it."""

from __future__ import annotations

import json
from pathlib import Path

import gallery
import pytest
from matplotlib.image import imread

CHEAP = ["classification", "streaming"]  # the others take longer and run under make test-all
NAMES = [
    pytest.param(name, marks=[] if name in CHEAP else [pytest.mark.slow])
    for name in gallery.ORDER
    if name not in gallery.CUDA  # `make notebooks` runs those, where PyTorch is
]


def test_every_script_is_in_the_order() -> None:
    assert sorted(gallery.ORDER) == sorted(path.stem for path in gallery.GALLERY.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_and_draws_its_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = gallery.run(name)
    assert "".join(printed)
    assert len(printed) == sum(not cell.markdown for cell in gallery.cells(gallery.GALLERY / f"{name}.py"))
    picture = imread(tmp_path / f"{name}.png")
    assert picture.shape[1] > 600 and picture.std() > 0.02


@pytest.mark.parametrize("name", gallery.ORDER)
def test_a_page_has_text_code_output_and_picture(name: str) -> None:
    page = gallery.page(name)
    assert page.startswith(f"# {gallery.title(name)}\n")
    assert page.count("```python\n") >= 2 and "<!-- prints -->" in page
    assert f"({name}.png)" in page and (gallery.GALLERY / f"{name}.png").is_file()
    assert "needs an NVIDIA GPU" in page or name not in gallery.CUDA


@pytest.mark.parametrize("name", gallery.ORDER)
def test_a_notebook_has_the_same_cells(name: str) -> None:
    notebook = json.loads(json.dumps(gallery.notebook(name)))
    texts = ["".join(cell["source"]).strip() for cell in notebook["cells"]]
    assert [cell["cell_type"] == "markdown" for cell in notebook["cells"]] == [
        cell.markdown for cell in gallery.cells(gallery.GALLERY / f"{name}.py")
    ]
    assert texts == [cell.text.strip() for cell in gallery.cells(gallery.GALLERY / f"{name}.py")]
