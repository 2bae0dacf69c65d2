"""Every relative link and anchor in the Markdown files must lead somewhere: `python tools/check_links.py`.

Links to other sites are left alone; code blocks and code spans are not read.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {"node_modules", "build", "dist", "out"}  # and whatever is hidden, environments for example
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HTML = re.compile(r"<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")


def prose(text: str) -> str:
    """`text` without its fenced blocks and code spans."""
    text = re.sub(r"^(```+|~~~+).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """The anchors of a file's headings, formed as on GitHub, and those written out as HTML."""
    names: set[str] = set(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", text))
    fenceless = re.sub(r"^(```+|~~~+).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for title in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", fenceless, flags=re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number, unique = 0, slug
        while unique in names:
            number += 1
            unique = f"{slug}-{number}"
        names.add(unique)
    return names


def _skipped(path: Path) -> bool:
    return any(part in SKIPPED or part.startswith(".") for part in path.parts)


def broken_links(root: Path) -> list[str]:
    """One line for each relative link under `root` that leads nowhere: the file, the link, what is missing."""
    files = [path for path in sorted(root.rglob("*.md")) if not _skipped(path.relative_to(root))]
    wrong = []
    for path in files:
        text = prose(path.read_text(encoding="utf-8"))
        for link in LINK.findall(text) + HTML.findall(text):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            target, _, anchor = link.partition("#")
            file = (path.parent / target).resolve() if target else path
            if not file.exists():
                wrong.append(f"{path.relative_to(root)}: {link}: no such file")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
                wrong.append(f"{path.relative_to(root)}: {link}: no such heading")
    return wrong


if __name__ == "__main__":
    problems = broken_links(ROOT)
    print("\n".join(problems) or "every relative link leads somewhere")
    sys.exit(bool(problems))
