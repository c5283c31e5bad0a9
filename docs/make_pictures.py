"""Draws the pictures of `proof.md` from its example: `python docs/make_pictures.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"

K = 2
"""Documents that the example asks for."""

STYLE = """\
<style>
text { font: 14px system-ui, sans-serif; fill: #222 }
.note { fill: #666 } .dense { fill: #3b6fb6 } .sparse { fill: #c77b2c } .in { fill: #fff }
.line { fill: none; stroke-width: 2.5 } .bound { stroke: #b3261e } .kth { stroke: #2e7d32 }
.axis, .cut { stroke: #888; stroke-width: 1 } .cut { stroke-dasharray: 5 4; stroke: #b3261e }
.red { fill: #b3261e } .green { fill: #2e7d32 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .note { fill: #aaa } .in { fill: #fff } .red { fill: #ff8a80 }
  .green { fill: #8bd48f } .bound, .cut { stroke: #ff8a80 } .kth { stroke: #8bd48f }
}
</style>"""


@dataclass(frozen=True, slots=True)
class Row:
    """A document of the example: its name and the two parts of its score."""

    name: str
    dense: int
    sparse: int

    @property
    def score(self) -> int:
        """The sum."""
        return self.dense + self.sparse


@dataclass(frozen=True, slots=True)
class Round:
    """What is known once both lists were read to `depth`: the bound and the k-th best score."""

    depth: int
    seen: tuple[Row, ...]
    bound: int
    kth: int


def example() -> list[Row]:
    """Read the example from the table of the page."""
    page = (DOCS / "proof.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([A-Z]) \| (-?\d+) \| (\d+) \|", page, flags=re.MULTILINE)
    return [Row(name, int(dense), int(sparse)) for name, dense, sparse in found]


def lists(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the documents by falling dense part, and those with a sparse part by that."""
    by_dense = sorted(rows, key=lambda row: -row.dense)
    return by_dense, sorted((row for row in rows if row.sparse), key=lambda row: -row.sparse)


def read_to(rows: list[Row], depth: int) -> Round:
    """Return what is known at a depth below the number of documents."""
    by_dense, by_sparse = (found[:depth] for found in lists(rows))
    seen = tuple(row for row in rows if row in by_dense or row in by_sparse)
    rest = by_sparse[-1].sparse if len(by_sparse) == depth else 0
    best = sorted((row.score for row in seen), reverse=True)
    return Round(depth, seen, by_dense[-1].dense + rest, best[K - 1])


def draw_lists(rows: list[Row], depth: int) -> str:
    """Draw both lists as bars, cut at a depth."""
    drawn = [_text(20, 24, "dense list"), _text(320, 24, "sparse list")]
    for left, kind, found in zip((20, 320), ("dense", "sparse"), lists(rows), strict=True):
        for place, row in enumerate(found):
            top, value = 40 + 30 * place, getattr(row, kind)
            drawn.append(_text(left, top + 17, row.name))
            if value > 0:
                drawn.append(
                    f'<rect class="{kind}" x="{left + 24}" y="{top}" width="{20 * value}" '
                    'height="22" rx="3"/>'
                )
            inside = 'class="in"' if value > 1 else ""
            drawn.append(_text(left + 30, top + 17, str(value), inside))
    cut = 36 + 30 * depth
    known = read_to(rows, depth)
    drawn += [
        f'<line class="cut" x1="10" y1="{cut}" x2="590" y2="{cut}"/>',
        _text(20, 300, f"Below the line in both: at most {known.bound}.", 'class="red"'),
        _text(320, 300, f"Best {K} above it: {known.kth} or more.", 'class="green"'),
    ]
    return _picture(600, 316, drawn)


def draw_rounds(rows: list[Row]) -> str:
    """Draw how the bound falls and the k-th score rises with the depth."""
    rounds = [read_to(rows, depth) for depth in range(1, len(rows))]
    drawn = [
        '<line class="axis" x1="50" y1="20" x2="50" y2="250"/>',
        '<line class="axis" x1="50" y1="250" x2="560" y2="250"/>',
        _text(560, 268, "depth n", 'class="note" text-anchor="end"'),
        _text(16, 14, "score", 'class="note"'),
    ]
    for name in ("bound", "kth"):
        points = [(50 + 60 * known.depth, 250 - 10 * getattr(known, name)) for known in rounds]
        line = " ".join(f"{x},{y}" for x, y in points)
        drawn.append(f'<polyline class="line {name}" points="{line}"/>')
        for known, (x, y) in zip(rounds, points, strict=True):
            is_upper = (name == "bound") == (known.bound > known.kth)
            look = f'class="{"red" if name == "bound" else "green"}" text-anchor="middle"'
            drawn.append(_text(x, y + (-10 if is_upper else 22), str(getattr(known, name)), look))
    proven = next(known for known in rounds if known.kth >= known.bound)
    x = 50 + 60 * proven.depth
    drawn += [
        f'<line class="axis" x1="{x}" y1="40" x2="{x}" y2="250" stroke-dasharray="3 4"/>',
        _text(x + 6, 46, f"proven at depth {proven.depth}"),
        _text(330, 24, f"score of the document at rank {K}", 'class="green"'),
        _text(70, 242, "bound on all that was not seen", 'class="red"'),
        *(
            _text(50 + 60 * known.depth, 268, str(known.depth), 'class="note" text-anchor="middle"')
            for known in rounds
        ),
    ]
    return _picture(600, 284, drawn)


def pictures() -> dict[str, str]:
    """Return the files by name."""
    rows = example()
    return {
        "lists-2.svg": draw_lists(rows, 2),
        "lists-4.svg": draw_lists(rows, 4),
        "rounds.svg": draw_rounds(rows),
    }


def _text(x: int, y: int, text: str, attributes: str = "") -> str:
    space = " " if attributes else ""
    return f'<text x="{x}" y="{y}"{space}{attributes}>{text}</text>'


def _picture(width: int, height: int, drawn: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, STYLE, *drawn, "</svg>", ""])


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        (PICTURES / name).write_text(picture, encoding="utf-8")
