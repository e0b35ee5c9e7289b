"""Pages that a person reads: no script, nothing from elsewhere, print in black and white.

A page is a template beside this module that fills the blocks of page.html.jinja. Everything that a template is given is
escaped; what a template forgets to be given is an error.
"""

from pathlib import Path
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """HTML of a template in this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    # Named here and not in the templates: files that a module names are part of the digest of its results.
    return environment.get_template(template).render(values, base="page.html.jinja", style="page.css")
