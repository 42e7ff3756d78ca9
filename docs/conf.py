"""How Sphinx makes the documentation of ``docs/``: ``make docs`` writes it into ``build/docs``."""

from dapi import __version__

project = "dapi"
author = "the dapi developers"
project_copyright = "the dapi developers"
release = version = __version__

extensions = ["myst_parser"]
exclude_patterns = ["examples"]
# The chapters of problems, and of settings, are linked to by their headings.
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"dapi {release}"
# Nothing of the pages comes from elsewhere, and they look the same from each build.
html_show_sphinx = False
html_last_updated_fmt = None
nitpicky = True
