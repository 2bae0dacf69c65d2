"""The built site in a browser, opened from the disk: every page renders, nothing is missing, nothing is fetched.

`make test-site` builds it and runs this; it needs Debian's chromium.
"""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "build" / "site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if path.name != "404.html")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]


def shown(address: str, tmp_path: Path) -> tuple[str, list[str]]:
    """The page's elements once its scripts are done, and what it complained of."""
    command = [
        "chromium",
        *QUIET,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    run = subprocess.run([*command, f"file://{SITE}/{address}"], capture_output=True, text=True, check=True)
    return run.stdout, re.findall(r"CONSOLE.*", run.stderr)


def test_there_are_pages() -> None:
    assert {"index.html", "lstm-from-zero.html", "reference/forecast.html", "changelog.html"} <= set(PAGES)
    guides = ["tables", "forecasting", "layers", "long-sequences", "cuda", "other-libraries", "speed"]
    assert {f"guides/{name}.html" for name in guides} <= set(PAGES)
    chinese = ["index", "lstm-from-zero", "guides/forecasting", "guides/layers"]
    assert {f"{name}.zh.html" for name in chinese} <= set(PAGES)


@pytest.mark.parametrize("name", sorted(path.stem for path in (SITE.parents[1] / "docs" / "gallery").glob("*.py")))
def test_an_example_of_the_gallery_has_its_picture_and_its_notebook(name: str) -> None:
    page = (SITE / "gallery" / f"{name}.html").read_text(encoding="utf-8")
    assert f'src="{name}.png"' in page and f'href="{name}.ipynb"' in page
    assert (SITE / "gallery" / f"{name}.ipynb").stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES)
def test_a_page_renders_without_complaint(page: str, tmp_path: Path) -> None:
    elements, complaints = shown(page, tmp_path)
    assert complaints == []
    assert re.search(r"<h1[ >]", elements)
    text = re.sub(r"<(script|style|pre|code)\b.*?</\1>", "", elements, flags=re.DOTALL)
    assert "```" not in text
    assert "\\frac" not in text
    assert "$`" not in text


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere_on_this_site(page: str) -> None:
    text = (SITE / page).read_text(encoding="utf-8")
    here = (SITE / page).parent
    for target in re.findall(r'(?:href|src)="([^"]+)"', re.sub(r"<(pre|code)\b.*?</\1>", "", text, flags=re.DOTALL)):
        address, _, anchor = html.unescape(target).partition("#")
        if re.match(r"(mailto|data|javascript):", address):
            continue
        if re.match(r"https?:", address):
            assert "<script" not in text[: text.index(target)][-60:], f"{page} fetches {target}"
            continue
        file = here / address if address else SITE / page
        file = file / "index.html" if file.is_dir() else file
        assert file.exists(), f"{page} leads to {target}"
        if anchor and file.suffix == ".html" and not anchor.startswith("__"):
            assert f'id="{anchor}"' in file.read_text(encoding="utf-8"), f"{page} leads to {target}"


def test_there_are_a_light_and_a_dark_look() -> None:
    text = (SITE / "index.html").read_text(encoding="utf-8")
    assert 'data-md-color-scheme="default"' in text and 'data-md-color-scheme="slate"' in text


def test_formulas_are_formulas(tmp_path: Path) -> None:
    elements, _ = shown("lstm-from-zero.html", tmp_path)
    assert elements.count("<math") > 40


@pytest.mark.parametrize("word", ["quantile", "forget gate", "chunks"])
def test_the_search_finds(word: str, tmp_path: Path) -> None:
    elements, _ = shown(f"index.html?q={word.replace(' ', '%20')}", tmp_path)
    count = re.search(r'md-search-result__meta">\s*(\d+) matching documents', elements)
    assert count, "the search shows no results"
    assert int(count.group(1)) > 0


def test_quoted_code_looks_different_from_code_to_run() -> None:
    text = (SITE / "lstm-from-zero.html").read_text(encoding="utf-8")
    assert '<span class="filename">gpulstm/engines/cells.py</span>' in text
    style = (SITE / "assets" / "site.css").read_text(encoding="utf-8")
    assert ".highlight:has(> .filename)" in style
