"""A page of the API for every package of `toca`, made while the documentation is built."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1] / "toca"
ROOMS = ["toca", *(f"toca.{path.parent.name}" for path in sorted(ROOT.glob("*/__init__.py")))]
PAGE = """# {room}

::: {room}
    options:
      show_root_heading: false
      show_root_toc_entry: false
      show_submodules: {submodules}
"""


def on_config(config: MkDocsConfig) -> None:
    config.nav.append({"API": [{room: f"api/{room}.md"} for room in ROOMS]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    for room in ROOMS:
        content = PAGE.format(room=room, submodules=str(room != "toca").lower())
        files.append(File.generated(config, f"api/{room}.md", content=content))
