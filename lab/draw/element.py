"""SVG elements as text: every attribute and every word escaped, numbers as short as a tenth of a pixel allows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lab.draw.shape import Point, Rect


def element(tag: str, *children: str, **attributes: str | float) -> str:
    """One element; `class_` is the attribute class, other underscores are hyphens; children are SVG or escaped text."""
    words = "".join(f' {_name(name)}="{_value(value)}"' for name, value in attributes.items())
    if not children:
        return f"<{tag}{words}/>"
    separator = "\n" if len(children) > 1 else ""
    return f"<{tag}{words}>{separator}{separator.join(children)}{separator}</{tag}>"


def rectangle(rect: Rect, **attributes: str | float) -> str:
    """A `rect` element."""
    return element("rect", x=rect.x, y=rect.y, width=rect.width, height=rect.height, **attributes)


def words(text: str, x: float, y: float, **attributes: str | float) -> str:
    """A `text` element; (x, y) is on its baseline."""
    return element("text", escape(text), x=x, y=y, **attributes)


def tooltip(text: str) -> str:
    """What is shown when the element around it is pointed at, and read aloud."""
    return element("title", escape(text))


def path(points: Sequence[Point]) -> str:
    """The `d` of a path along points."""
    return "M" + " L".join(f"{number(x)} {number(y)}" for x, y in points)


def number(value: float) -> str:
    """At most one decimal, no minus zero."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else number(value)
