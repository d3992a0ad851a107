"""The site of the documentation: ``sphinx-build -W -c docs . site``.

The sources are those of the whole repository, so that pages link to each other on the
site as they do in a checkout.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import sphemb

project = "sphemb"
author = copyright = "the authors of sphemb"
version = release = sphemb.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
include_patterns = ["*.md", "benchmarks/README.md", "docs/*.md"]
root_doc = "docs/index"
html_theme = "furo"
html_title = f"sphemb {sphemb.__version__}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# Names in single backquotes are names of code, whatever they are of.
default_role = "code"
napoleon_use_ivar = True
autodoc_typehints = "none"  # signatures have them already
autodoc_default_options = {"members": True, "imported-members": True}
autodoc_member_order = "bysource"
