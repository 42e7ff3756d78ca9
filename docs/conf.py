"""How Sphinx makes the documentation of ``docs/``: ``make docs`` writes it into ``build/docs``."""

from pathlib import Path

from dapi import __version__
from tools import http_reference, metrics_reference

project = "dapi"
author = "the dapi developers"
project_copyright = "the dapi developers"
release = version = __version__

extensions = ["myst_parser"]
exclude_patterns = ["examples"]
# The chapters of problems, and of settings, are linked to by their headings.
myst_heading_anchors = 3
nitpicky = True
highlight_language = "text"

html_theme = "furo"
html_title = f"dapi {release}"
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False

# They are made of the code each time, and not kept.
for made in (http_reference, metrics_reference):
    name = made.__name__.rpartition(".")[2].replace("_", "-")
    Path(__file__).with_name(f"{name}.md").write_text(made.reference(), encoding="utf-8")
