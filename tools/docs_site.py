"""Adds to the site the pages that live outside `docs/`, and orders the navigation.

A hook of mkdocs (https://www.mkdocs.org/user-guide/configuration/#hooks). A new page in `docs/` appears under "More"
until `SECTIONS` names it.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "model-card.md": "src/bluffscope/config/demo/MODEL_CARD.md",
    "benchmark.md": "src/bluffscope/pairs/data/README.md",
}
"""Pages of the site that are files elsewhere in the repository."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "Start": (
        "index",
        "quick-start",
        "notebooks/*",
        "real-model",
        "data",
        "lint",
        "ask",
        "own-answers",
        "models",
        "families",
        "sae-formats",
        "glossary",
        "faq",
    ),
    "Measure": ("definitions", "columns", "run-folder", "health", "memory", "speed", "scale", "reliability", "ray"),
    "Results": ("statistics", "report", "view", "compare", "features", "detect"),
    "Library": ("library", "own-analysis", "api"),
    "Trust": ("verify", "benchmark", "bluffqa", "model-card", "security"),
    "Project": ("contributing", "dependencies", "changelog"),
}
"""Pages of each section in their order, without `.md`; those that are not there are left out."""

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_MENTION = re.compile(r"(?<!\[)`docs/([a-z-]+\.md)`")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere, the notebooks, and the navigation."""
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(text, source)))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, page, content=notebook_page(notebook)))
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 (mkdocs names them)
    """Turn a page named in the text (`docs/data.md`) into a link to it."""

    def link(match: re.Match[str]) -> str:
        if files.get_file_from_path(match[1]) is None:
            return match[0]
        return f"[{match[0]}]({posixpath.relpath(match[1], posixpath.dirname(page.file.src_uri) or '.')})"

    return _MENTION.sub(link, markdown)


def navigation(pages: list[str]) -> list[dict[str, list[str]]]:
    """The sections with the pages that are there; those of no section under "More"."""
    left = dict.fromkeys(sorted(pages))
    nav: list[dict[str, list[str]]] = []
    for section, names in SECTIONS.items():
        chosen: list[str] = []
        for name in names:
            folder = name.removesuffix("*")
            chosen += [page for page in left if page == f"{name}.md" or (folder != name and page.startswith(folder))]
        for page in chosen:
            del left[page]
        if chosen:
            nav.append({section: chosen})
    return [*nav, {"More": list(left)}] if left else nav


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text, its code, and the outputs that are stored with it."""
    parts: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_relinked(text, f"notebooks/{path.name}"))
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{text}\n```")
            outputs = ["".join(output.get("text", ())) for output in cell["outputs"]]
            parts += [f"```text\n{output.rstrip()}\n```" for output in outputs if output]
    return "\n\n".join(parts) + "\n"


def _relinked(text: str, source: str) -> str:
    """The text of a file with its links to files of the repository as links between pages of the site."""
    pages = {path: page for page, path in ELSEWHERE.items()}
    here = posixpath.dirname(source)
    at = "notebooks" if source.startswith("notebooks/") else "."

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match[1]))
        if target.endswith(".ipynb"):
            target = f"{target.removesuffix('.ipynb')}.md"
        return posixpath.relpath(pages.get(target, target.removeprefix("docs/")), at)

    return _LINK.sub(link, text)
