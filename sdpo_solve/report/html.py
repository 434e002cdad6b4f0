"""Self-contained HTML pages: elements that escape by default, one style for light and dark, no requests.

A text child is cleaned and escaped, only `Markup` made by `element` is not. The style is `page.css`. The page
forbids itself every request and every script but its own (by hash), so that a slip in escaping stays without
effect. Knows nothing of what is on a page.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from pathlib import Path

from sdpo_solve.errors import UserError
from sdpo_solve.sanitize import clean


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Iterable["Child"] | None

_VOID = {"br", "input", "meta"}


def element(name: str, /, *children: Child, **attributes: str | bool | int | float | None) -> Markup:
    """One element. Attribute names: `class_` and `for_` lose the underscore, others get `-` for `_`.

    An attribute that is None or False is left out, one that is True has no value.
    """
    said = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        said.append(f" {spelled}" if value is True else f' {spelled}="{_escape(str(value))}"')
    opening = f"<{name}{''.join(said)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """The children one after the other, texts escaped."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(_escape(child))
        elif child is not None:
            parts.append(join(*child))
    return Markup("".join(parts))


def _escape(text: str) -> str:
    return html.escape(clean(text))


def table(header: Iterable[Child], rows: Iterable[Iterable[Child]], *, class_: str | None = None) -> Markup:
    """A table in a box of its own that scrolls where the screen is narrow."""
    head = element("thead", element("tr", [element("th", cell, scope="col") for cell in header]))
    body = [element("tr", [element("td", cell) for cell in row]) for row in rows]
    return element(
        "div", element("table", head, element("tbody", body)), class_=f"wide {class_ or ''}".strip()
    )


def document(title: str, body: Markup, script: str = "") -> str:
    """The whole page as text."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    head = join(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        Markup(f"<style>{style}</style>"),
    )
    page = element("body", element("main", body), Markup(f"<script>{script}</script>") if script else None)
    return f'<!doctype html>\n<html lang="en">{element("head", head)}{page}</html>\n'


def write(path: Path, text: str) -> None:
    """Raises UserError where `path` cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise UserError(f"cannot write {path}: {exc.strerror or exc}") from None


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
