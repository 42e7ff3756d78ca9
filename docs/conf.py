"""How Sphinx makes the documentation of ``docs/``: ``make docs`` writes it into ``build/docs``."""

from pathlib import Path

from dapi import __version__
from tools.http_reference import reference

project = "dapi"
author = "the dapi developers"
project_copyright = "the dapi developers"
release = version = __version__

extensions = ["myst_parser"]
exclude_patterns = ["examples"]
# The chapters of problems, and of settings, are linked to by their headings.
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"dapi {release}"
html_show_sphinx = False

# It is made of the code each time, and not kept.
Path(__file__).with_name("http-reference.md").write_text(reference(), encoding="utf-8")
