"""How a page is made: a template of `templates`, with the style and the script of all pages.

A page is one file. Pictures and plots are inside it, nothing is fetched, and its policy keeps the
browser from fetching anything. It follows the reader's dark mode and prints on white.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from personae.core.units import count
from personae.version import __version__

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Return a page as HTML; text in `values` is shown as it is, never as markup.

    Args:
        template: name of a file in `templates` that extends `page.html`.
        values: what it shows; a name that it asks for and that is not given is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(
        style=_text("page.css"),
        script=_text("page.js"),
        version=__version__,
        count=count,
        **values,
    )


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
