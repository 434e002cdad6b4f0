"""Self-contained HTML pages from the templates beside this file: one style for light and dark, no requests.

Every value that a template prints is cleaned and escaped. A page forbids itself every request and any
script but its own (by hash), so that a slip in escaping stays without effect.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sdpo_solve.report import style
from sdpo_solve.sanitize import clean, middle_cut

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, script: str = "", **values: Any) -> str:
    """The page of this template as text; `script` names a file beside it that is put into the page."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=_cleaned,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cut"] = middle_cut
    css = (_FOLDER / "page.css").read_text(encoding="utf-8") + style.css()
    code = (_FOLDER / script).read_text(encoding="utf-8") if script else ""
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(code)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    page = environment.get_template(template)
    return page.render(css=Markup(css), script=Markup(code), policy=policy, **values)


def _cleaned(value: object) -> object:
    """Texts without control characters, before they are escaped; what is markup already stays."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
