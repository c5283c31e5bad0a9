"""Draw docs/latency.svg and docs/encoding-rate.svg of the figures in this folder.

python benchmarks/plots.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
WIDTH, LEFT, TOP, HEIGHT, LEGEND = 820, 70, 40, 320, 330
COLOURS = (
    *("#b5179e", "#4361ee", "#4895ef", "#2a9d8f", "#8ab17d", "#6c757d"),
    *("#adb5bd", "#f4a261", "#e76f51", "#9c6644", "#ffb703", "#fb8500"),
)


def latency(rows: Sequence[Mapping[str, Any]], k: int) -> str:
    """Return the median time of each way against the number of documents, both logarithmic."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        # By lists is what was done before; with ten ways each still has a colour of its own.
        if row["k"] == k and "by lists" not in row["name"]:
            lines.setdefault(row["name"], []).append((row["documents"], max(row["p50_ms"], 0.01)))
    sizes = sorted({size for points in lines.values() for size, _ in points})
    times = [value for points in lines.values() for _, value in points]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    right = WIDTH - LEGEND

    def x(size: float) -> float:
        span = math.log(sizes[-1] / sizes[0]) or 1.0
        return LEFT + (right - LEFT - 20) * math.log(size / sizes[0]) / span

    def y(value: float) -> float:
        return TOP + HEIGHT * (high - math.log10(value)) / max(high - low, 1)

    parts = [_text(LEFT, 22, f"top {k}: median milliseconds against documents")]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts += [_line([(LEFT, at), (right - 20, at)], "#ccc", 1)]
        parts.append(_text(LEFT - 8, at + 4, f"{10.0**power:g}", "end"))
    parts += [_text(x(size), TOP + HEIGHT + 20, f"{size:,}", "middle") for size in sizes]
    for place, (name, points) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        drawn = [(x(size), y(value)) for size, value in sorted(points)]
        parts.append(_line(drawn, colour, 3 if place == 0 else 1.5))
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in drawn]
        at = TOP + 12 + 20 * place
        parts += [_line([(right, at - 4), (right + 18, at - 4)], colour, 3)]
        parts.append(_text(right + 24, at, name))
    return _svg(TOP + HEIGHT + 40, parts)


def encoding_rate(report: Mapping[str, Any]) -> str:
    """Return bars of what each encoder does in a second."""
    parts = []
    at = 22.0
    for title, key in (("documents", "documents_a_second"), ("queries", "queries_a_second")):
        parts.append(_text(LEFT, at, f"{title} encoded in a second"))
        largest = max(report[key].values())
        for place, (name, rate) in enumerate(report[key].items()):
            at += 26
            width = 440 * rate / largest
            colour = COLOURS[0] if place == 0 else COLOURS[5]
            parts.append(_text(LEFT + 130, at + 4, name, "end"))
            parts.append(
                f'<rect x="{LEFT + 140}" y="{at - 9:.1f}" width="{width:.1f}" height="18" '
                f'fill="{colour}"/>'
            )
            parts.append(_text(LEFT + 148 + width, at + 4, f"{rate:,.1f}"))
        at += 44
    return _svg(at, parts)


def _line(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    """Draw what has been measured."""
    for source, target, draw in (
        ("search.json", "latency.svg", lambda report: latency(report["rows"], 10)),
        ("encoders.json", "encoding-rate.svg", encoding_rate),
    ):
        if (HERE / source).exists():
            report = json.loads((HERE / source).read_text(encoding="utf-8"))
            (DOCS / target).write_text(draw(report), encoding="utf-8")


if __name__ == "__main__":
    main()
