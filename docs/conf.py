"""How Sphinx builds the documentation: `sphinx-build -W -b html docs docs/_build`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from fastcheck import __version__

project = "fastcheck"
author = "The fastcheck authors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

default_role = "code"  # `W_l` in a docstring is code
autodoc_typehints = "none"  # docstrings say types, with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"fastcheck {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sphinx = False

# The page that report.md shows, by the command that it names.
EXAMPLE = ["--layers", "64-100-100-10", "--plant", "derivative_missing@1", "--quiet", "--html"]


def write_example(app: Any, error: Exception | None) -> None:
    """Write the example of a report page beside the page about it."""
    if error is None and app.builder.format == "html":
        page = Path(app.outdir) / "example-report.html"
        command = [sys.executable, "-m", "fastcheck", *EXAMPLE, str(page)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 1:  # the exit code of a gradient that is wrong
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


def setup(app: Any) -> None:
    """Connect what is done beside the build itself."""
    app.connect("build-finished", write_example)
