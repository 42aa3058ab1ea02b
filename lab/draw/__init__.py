"""Pictures of a topology: SVG for print and web pages, Mermaid text for Markdown. Pure: a `Topology` in, text out."""

from lab.draw.mermaid import to_mermaid
from lab.draw.svg import to_svg

__all__ = ["to_mermaid", "to_svg"]
