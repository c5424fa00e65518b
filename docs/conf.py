"""Configuration of the site: ``python -m sphinx -W --keep-going -b html docs site``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bpcore  # noqa: E402

project = "bpcore"
author = "the bpcore contributors"
copyright = author
version = release = bpcore.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "docs.extensions.api_pages",
    "docs.extensions.architecture",
    "docs.extensions.equations",
    "docs.extensions.gallery",
    "docs.extensions.links",
    "docs.extensions.mathml",
    "docs.extensions.side_list",
    "docs.extensions.site_only",
]
exclude_patterns = ["extensions", "tools"]
nitpicky = True
# Other libraries are named and not linked: a build needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(numpy|scipy|sys|sklearn|ast|math|multiprocessing)\b.*")]
default_role = "literal"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
html_math_renderer = "mathml"

# The docstrings say the types, in words.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
toc_object_entries = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
viewcode_follow_imported_members = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"bpcore {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
