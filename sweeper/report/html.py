"""HTML elements. Text is escaped unless it is `Markup`, and nothing but this module makes that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

_IDS = re.compile(r'\bid="([^"]+)"')
_VOID = frozenset({"meta", "br"})


class Markup(str):
    """HTML that is safe to put into a page as it stands."""

    __slots__ = ()


Child = str | Markup | Sequence["Child"] | None


def tag(name: str, /, *children: Child, **attributes: str | None) -> Markup:
    """An element; children that are plain text are escaped, attributes always.

    Args:
        name: of the element.
        children: what stands in it, lists flattened, None left out.
        attributes: a trailing underscore is dropped, others become hyphens; None leaves the attribute out.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Several pieces, one after the other."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(escape(child))
        elif child is not None:
            parts.append(str(joined(*child)))
    return Markup("".join(parts))


def raw(name: str, content: str, **attributes: str) -> Markup:
    """A style or script element of our own making: its content stands as it is.

    Raises:
        ValueError: the content would end the element.
    """
    if f"</{name}" in content.lower():
        raise ValueError(f"a {name} element can't hold {f'</{name}'!r}")
    return Markup(str(tag(name, Markup(content), **attributes)))


def drawing(svg: str, name: str) -> Markup:
    """An SVG that vl-convert made, which escapes its texts.

    Args:
        svg: the drawing.
        name: unique on the page; the ids in the drawing begin with it, so that no two drawings share one.
    """
    body = svg[svg.index("<svg") :]
    for found in dict.fromkeys(_IDS.findall(body)):
        body = body.replace(f'id="{found}"', f'id="{name}-{found}"').replace(f"url(#{found})", f"url(#{name}-{found})")
    return Markup(body)


def data_table(id_: str, caption: str, rows: Sequence[Mapping[str, str]]) -> Markup:
    """A table of cells with a caption, column heads and row heads; it scrolls sideways where it is too wide.

    Args:
        id_: of its caption, unique on the page.
        caption: what it shows.
        rows: column to text, all with the same columns; the first column heads the rows.
    """
    columns = list(rows[0])
    head = tag("tr", [tag("th", column, scope="col") for column in columns])
    body = [
        tag("tr", tag("th", row[columns[0]], scope="row"), [tag("td", row[column]) for column in columns[1:]])
        for row in rows
    ]
    table = tag("table", tag("caption", caption, id=id_), tag("thead", head), tag("tbody", body))
    return tag("div", table, class_="scroll", role="region", tabindex="0", aria_labelledby=id_)
