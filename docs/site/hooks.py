"""Hooks of mkdocs: pages that are made from the sources at each build, and written to no file of the repository."""

from __future__ import annotations

import re

import catalogue  # beside this file; mkdocs looks there
import pictures
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from recipes.config.catalogue import Catalogue


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the catalogue with its pictures, the page of what is refused and that of the techniques' classes."""
    ours = Catalogue()
    drawn = pictures.pictures(ours)
    pages = {
        "catalogue.md": catalogue.page(ours, drawn),
        "refusals.md": catalogue.refused(ours),
        "api/techniques.md": catalogue.techniques(ours),
    }
    for name, content in {**pages, **drawn}.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Roles of reStructuredText, such as `:class:`, are left away in front of the code that they mark."""
    return re.sub(r":\w+:(?=<code>)", "", html)
