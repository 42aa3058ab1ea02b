"""Many leaves of one network: in columns, each beside a line of its own, instead of one row wider than any page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lab.draw.measure import widen
from lab.draw.shape import Link, Rect

COLUMN_SHAPE = 1.7  # width : height of the block
TRUNK = 14.0  # from the left of a column to its boxes
TRUNK_INSET = 3.0  # from the left of a column to its line
ABOVE_LABEL = 9.0
BELOW_LABEL = 3.0


@dataclass(slots=True)
class Columns:
    """A block of boxes in columns, read downwards; each has one link, its label above it."""

    links: Sequence[Link]
    box_widths: list[float]  # of each column
    row_heights: list[float]
    label_height: float
    gap: float  # between columns

    @classmethod
    def of(cls, links: Sequence[Link], gap: float) -> Columns:
        """The block for the boxes of some links, each box widened to its column."""
        boxes = [link.box for link in links]
        label_height = max(link.height for link in links) + ABOVE_LABEL + BELOW_LABEL
        wide = sum(box.width for box in boxes) / len(boxes) + gap + TRUNK
        high = sum(box.height for box in boxes) / len(boxes) + label_height
        wanted = round(math.sqrt(len(boxes) * high * COLUMN_SHAPE / wide))
        rows = math.ceil(len(boxes) / max(1, min(len(boxes), wanted)))
        widths = [max(box.width for box in boxes[start : start + rows]) for start in range(0, len(boxes), rows)]
        for position, box in enumerate(boxes):
            widen(box, widths[position // rows])
        heights = [label_height + max(box.height for box in boxes[row::rows]) for row in range(rows)]
        return cls(links, widths, heights, label_height, gap)

    @property
    def width(self) -> float:
        return sum(self.box_widths) + len(self.box_widths) * (TRUNK + self.gap) - self.gap

    @property
    def height(self) -> float:
        return sum(self.row_heights)

    def place_across(self, x: float) -> None:
        """Puts the left edge at `x`."""
        lefts = [x + TRUNK + sum(self.box_widths[:c]) + c * (TRUNK + self.gap) for c in range(len(self.box_widths))]
        for position, link in enumerate(self.links):
            link.box.x = lefts[position // len(self.row_heights)]

    def place_down(self, y: float) -> None:
        """Puts the top edge at `y` and draws the links to their bar, which has its place."""
        tops = [y + sum(self.row_heights[:row]) + self.label_height for row in range(len(self.row_heights))]
        for position, link in enumerate(self.links):
            box, bar = link.box, link.bar
            box.y = tops[position % len(self.row_heights)]
            link.label = Rect(box.x, box.y - link.height - BELOW_LABEL, link.width, link.height)
            trunk, middle = box.x - TRUNK + TRUNK_INSET, box.rect.middle[1]
            link.points = [(box.x, middle), (trunk, middle), (trunk, bar.rect.bottom if box.y > bar.y else bar.y)]
