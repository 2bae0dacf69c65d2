"""What the site shows besides the files of docs/: changes, decisions and the reference; and how quoted code is marked.

MkDocs calls the functions named `on_...` while it builds (`mkdocs.yml` names this file).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import gallery  # noqa: E402 - next to this file

REFERENCE = {
    "layers": (
        "Layers and networks",
        ["gpulstm.LSTM", "gpulstm.GRU", "gpulstm.RNN", "gpulstm.model.Recurrent", "gpulstm.Dense", "gpulstm.Embedding"]
        + [
            "gpulstm.model.Network",
            "gpulstm.model.NetworkConfig",
            "gpulstm.engines.spec",
            "gpulstm.arrays.devices",
            "gpulstm.arrays.threads",
        ],
    ),
    "forecast": (
        "Forecasting",
        ["gpulstm.forecast.Forecaster", "gpulstm.forecast.Forecast", "gpulstm.forecast.Backtest"],
    ),
    "training": (
        "Training",
        ["gpulstm.training.Trainer", "gpulstm.training.History", "gpulstm.training.callbacks", "gpulstm.losses"]
        + ["gpulstm.optimizers", "gpulstm.schedules", "gpulstm.metrics"],
    ),
    "data": (
        "Data",
        [
            "gpulstm.data.load_series",
            "gpulstm.data.SeriesSet",
            "gpulstm.data.windows.WindowSet",
            "gpulstm.data.tbptt.Lanes",
        ],
    ),
    "plots": ("Pictures", ["gpulstm.plots.figures", "gpulstm.plots.style"]),
    "interop": ("Other libraries", ["gpulstm.interop"]),
    "errors": ("Errors", ["gpulstm.errors"]),
}

GALLERY = """# Gallery

Short programs on real data, each a page and a notebook made of one script, which the tests run.

"""

FORMULA = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IN_LINE = re.compile(r"\$`([^`\n]+)`\$")
QUOTED = re.compile(r"<!-- from (\S+) -->\n```python\n")
PRINTED = re.compile(r"<!-- prints -->\n```text\n")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from something else."""
    for name, (title, members) in REFERENCE.items():
        text = f"# {title}\n\n" + "\n\n".join(f"::: {member}" for member in members) + "\n"
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=changes))
    names = "".join(f"- [{gallery.title(name)}]({name}.md)\n" for name in gallery.ORDER)
    files.append(File.generated(config, "gallery/index.md", content=GALLERY + names))
    for name in gallery.ORDER:
        files.append(File.generated(config, f"gallery/{name}.md", content=gallery.page(name)))
        notebook = json.dumps(gallery.notebook(name), indent=1)
        files.append(File.generated(config, f"gallery/{name}.ipynb", content=notebook))
    rows = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        rows.append(f"- [{title}]({path.name})")
    page = "# Decisions\n\nHalf a page each: the question, the answer, what it costs, what else there was.\n\n"
    files.append(File.generated(config, "decisions/index.md", content=page + "\n".join(rows) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Formulas as MathML, quotations with their file, what a block prints with a label; links out of docs/ as names."""
    markdown = QUOTED.sub(r'```python title="\1"' + "\n", markdown)
    markdown = PRINTED.sub('```text title="prints"\n', markdown)
    here = Path(page.file.src_uri).parent

    def kept(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match.group(0)
        folder = f"{target}/index.md"
        if not picture and files.get_file_from_path((here / folder).as_posix()):
            return f"[{text}]({folder})"
        resolved = (ROOT / "docs" / here / target.split("#")[0]).resolve()
        generated = files.get_file_from_path((here / target.split("#")[0]).as_posix())
        held = generated is not None and generated.inclusion.is_included()
        inside = resolved.is_relative_to(ROOT / "docs") or held
        known = inside and (held or resolved.suffix in {".md", ".png", ".svg"})
        return match.group(0) if known or picture else text

    markdown = FORMULA.sub(lambda match: f"<div>{convert(match.group(1), display='block')}</div>", markdown)
    markdown = IN_LINE.sub(lambda match: convert(match.group(1)), markdown)
    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(kept, part) for part in blocks)


FETCHED = "https://unpkg.com/iframe-worker/shim"  # what the theme would fetch for a search from the disk


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The search works from the disk by a file of the site's own."""
    return output.replace(FETCHED, "../" * page.file.src_uri.count("/") + "assets/worker.js")


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """As `on_post_page`, for the page of what is not there."""
    return output_content.replace(FETCHED, "/assets/worker.js")
