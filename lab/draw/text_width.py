"""How wide text is at most, in the widest font of the picture's font stack: no download, no font file, no surprise."""

from __future__ import annotations

MONO_ADVANCE = 0.603  # em; DejaVu Sans Mono 0.602, Menlo 0.602, Courier 0.600, Consolas 0.550


def sans_width(text: str, size: float, *, bold: bool = False) -> float:
    """Pixels of `text` at `size` pixels per em, measured in DejaVu Sans, the widest font of the stack."""
    table = BOLD if bold else REGULAR
    return size * sum(table.get(character, WIDEST) for character in text) / 1000


def mono_width(text: str, size: float) -> float:
    """Pixels of `text` in a fixed-width font."""
    return size * MONO_ADVANCE * len(text)


def _table(classes: dict[int, str]) -> dict[str, int]:
    return {character: width for width, characters in classes.items() for character in characters}


WIDEST = 1110  # 1/1000 em, of a character that the tables lack

# Advance widths of DejaVu Sans and DejaVu Sans Bold, in 1/1000 em, rounded up.
REGULAR = _table(
    {
        278: "'ijl",
        318: "IJ ,.·\u00a0",
        337: "/:;\\|",
        361: "f-",
        393: "()[]t",
        412: "!r",
        500: '"*_`',
        525: "sz",
        550: "?c",
        580: "LFk",
        616: "vxyPTYoae",
        637: "EhnuSbdgpq$0123456789{}",
        699: "KAVXZBRC",
        788: "UNHDG&OQ",
        838: "w#+<=>^~→",
        989: "M%mW",
        1000: "@…",
    }
)
BOLD = _table(
    {
        349: "'ijl \u00a0",
        380: "/\\|IJ,.·",
        416: ":;-",
        458: "f!()[]",
        500: "tr_`",
        523: '"*',
        596: "?zcs",
        652: "Lxvy",
        688: "kaeTEFo",
        716: "$0123456789hnu{}bdgpq",
        775: "SYZPCBRXAVK",
        851: "UGDHN#+<=>^~→OQ",
        924: "&w",
        1104: "M@…%mW",
    }
)
