"""Sphinx's settings; `build.py` in this folder runs it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import docstrings

project = "jaxtickets"
author = "the authors of jaxtickets"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
html_theme = "furo"
html_title = "jaxtickets"
html_copy_source = False

nb_execution_mode = "off"  # notebooks are shown as they are kept
myst_heading_anchors = 4
myst_links_external_new_tab = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True


def setup(app):
    """Docstrings are plain text with code in single backticks."""
    app.connect("autodoc-process-docstring", docstrings.as_rst, priority=100)
    app.connect("autodoc-process-docstring", docstrings.with_colons, priority=900)
    app.connect("autodoc-skip-member", docstrings.skip)
