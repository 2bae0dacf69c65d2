"""Links in the documentation, and the numbers that are stated in more than one place."""

from __future__ import annotations

import importlib.metadata
import pydoc
import re
import runpy
from pathlib import Path

from paths import CHECKOUT, TOOLS

import gpulstm

CHECK = runpy.run_path(str(TOOLS / "check_links.py"))


def test_every_relative_link_leads_somewhere() -> None:
    assert CHECK["broken_links"](CHECKOUT) == []


def test_the_check_finds_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# One: two\n[ok](b.md#part-1) [self](#one-two) [out](https://example.org/x) `[code](no.md)`\n"
        "```\n[fenced](no.md)\n```\n[gone](c.md) [nowhere](b.md#nothing) ![picture](no.png)\n"
    )
    (tmp_path / "b.md").write_text("## Part 1\n")
    assert CHECK["broken_links"](tmp_path) == [
        "a.md: c.md: no such file",
        "a.md: b.md#nothing: no such heading",
        "a.md: no.png: no such file",
    ]


def test_the_version_is_one() -> None:
    assert importlib.metadata.version("gpulstm") == gpulstm.__version__
    changelog = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^\]]*)\]", changelog, flags=re.MULTILINE)[0] == gpulstm.__version__


def test_the_tools_of_pre_commit_are_those_of_the_extra() -> None:
    expected = re.search(r'"ruff==([\d.]+)"', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    hook = re.search(r"rev: v([\d.]+)", (CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert expected
    assert hook
    assert expected.group(1) == hook.group(1)


def test_the_reference_of_the_site_names_what_is_there() -> None:
    text = (TOOLS / "site_hooks.py").read_text(encoding="utf-8")
    names = re.findall(r'"(gpulstm\.[\w.]+)"', text)
    assert len(names) > 20
    for name in names:
        assert pydoc.locate(name) is not None, name
    reference = "\n".join(names)
    assert not [name for name in gpulstm.__all__ if name[0].isupper() and f".{name}" not in reference]
