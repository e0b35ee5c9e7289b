"""Pages that a person reads: no script, nothing from elsewhere, print in black and white.

A page is a template beside the module that makes it, and fills the blocks of page.html.jinja. Everything that a
template is given is escaped; what a template forgets to be given is an error.
"""

from pathlib import Path
from typing import Any

import jinja2


def render(module: str, **values: Any) -> str:
    """HTML of the template beside `module` (its `__file__`; of audit_page.py it is audit_page.html.jinja)."""
    template = Path(module).with_suffix(".html.jinja")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template(template.name).render(values)
