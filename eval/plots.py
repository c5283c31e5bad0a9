"""Plots as inline SVG: dots with intervals, curves, a scatter of pairs, bars of values.

Colours are classes and CSS variables of the page that they stand in, so they follow its theme.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_LABEL_CHARACTERS = 22
_BINS = 24
_BARS_WIDE, _BARS_HIGH = 260, 130
_COLOURS = 8  # of lines, in page.css; more lines are dashed
_PLACES = 6  # for bars of counted values, at least, so that a lone one is no block


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval, if it has one; `kind` is a class: better, worse, base, or none."""

    label: str
    value: float
    interval: tuple[float, float] | None
    kind: str = ""


def dot_plot(title: str, dots: Sequence[Dot]) -> str:
    """Return one row a dot, its interval a line through it."""
    left, width, row, top = 160, 540, 24, 30
    height = top + row * len(dots) + 28
    ends = [end for dot in dots for end in (dot.value, *(dot.interval or ()))]
    axis = _Axis.around(ends, left, width - 60)
    bottom = top + row * len(dots)
    parts = [_title(title), *_grid(axis, top, bottom)]
    for place, dot in enumerate(dots):
        y = top + row * place + row / 2
        label = escape(_short(dot.label))
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" class="end">{label}</text>')
        hover = f"{dot.label}: {dot.value:.4f}"
        if dot.interval:
            low, high = dot.interval
            hover += f" [{low:.4f}, {high:.4f}]"
            parts.append(
                f'<line x1="{axis.at(low):.1f}" x2="{axis.at(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
                f'class="interval {dot.kind}"/>'
            )
        parts.append(
            f'<circle cx="{axis.at(dot.value):.1f}" cy="{y:.1f}" r="5" class="dot {dot.kind}">'
            f"<title>{escape(hover)}</title></circle>"
        )
        parts.append(f'<text x="{width - 52}" y="{y + 4:.1f}">{dot.value:.4f}</text>')
    return _svg(width, height, title, parts)


def scatter(title: str, points: Sequence[tuple[float, float, str]], x_name: str) -> str:
    """Return pairs (x, y, what hovering shows) with the line on which both are equal."""
    left, top, side = 44, 30, 230
    values = [value for x, y, _ in points for value in (x, y)]
    across = _Axis.around([0.0, *values], left, left + side)
    up = _Axis(across.low, across.high, top + side, top)
    parts = [_title(title), *_grid(across, top, top + side)]
    for tick in up.ticks():
        parts.append(f'<text x="{left - 6}" y="{up.at(tick) + 4:.1f}" class="end">{tick:g}</text>')
    parts.append(
        f'<line x1="{left}" y1="{top + side}" x2="{left + side}" y2="{top}" class="equal"/>'
    )
    for x, y, hover in points:
        kind = "better" if y > x else "worse" if y < x else "base"
        parts.append(
            f'<circle cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="3.5" class="pair {kind}">'
            f"<title>{escape(hover)}</title></circle>"
        )
    parts.append(
        f'<text x="{left + side / 2}" y="{top + side + 34}" class="middle">{escape(x_name)}</text>'
    )
    return _svg(left + side + 16, top + side + 42, title, parts)


def curves(title: str, lines: Mapping[str, Sequence[float]], x_name: str) -> str:
    """Return lines over equal steps from 0 to 1, each with its name where a legend stands."""
    left, top, wide, high = 44, 30, 420, 260
    across = _Axis(0.0, 1.0, left, left + wide)
    up = _Axis.around([0.0, *itertools.chain(*lines.values())], top + high, top)
    parts = [_title(title), *_grid(across, top, top + high)]
    for tick in up.ticks():
        parts.append(f'<text x="{left - 6}" y="{up.at(tick) + 4:.1f}" class="end">{tick:g}</text>')
    for number, (name, values) in enumerate(lines.items()):
        kind = f"line line-{number % _COLOURS}{' dashed' if number >= _COLOURS else ''}"
        places = np.linspace(0, 1, len(values)).tolist()
        points = (f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in zip(places, values, strict=True))
        y = top + 10 + 20 * number
        parts += [
            f'<polyline points="{" ".join(points)}" class="{kind}"><title>{escape(name)}</title>'
            "</polyline>",
            f'<line x1="{left + wide + 20}" x2="{left + wide + 44}" y1="{y}" y2="{y}" '
            f'class="{kind}"/>',
            f'<text x="{left + wide + 52}" y="{y + 4}">{escape(_short(name))}</text>',
        ]
    middle = left + wide / 2
    parts.append(f'<text x="{middle}" y="{top + high + 34}" class="middle">{escape(x_name)}</text>')
    height = max(top + high + 42, top + 20 * len(lines) + 10)
    return _svg(left + wide + 230, height, title, parts)


def histogram(title: str, values: Sequence[float]) -> str:
    """Return how many values fall into each of 24 equal ranges."""
    axis = _Axis.around(values, 0, _BARS_WIDE)
    counts, edges = np.histogram(values, bins=_BINS, range=(axis.low, axis.high))
    hovers = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    ticks = [(axis.at(tick), f"{tick:g}") for tick in axis.ticks()]
    return _bars(title, counts.tolist(), hovers, ticks)


def counted(title: str, values: Sequence[int]) -> str:
    """Return how often each value occurs, of values that are few."""
    found = sorted(Counter(values).items())
    names = [f"{value:,}" for value, _ in found]
    counts = [count for _, count in found]
    counts += [0] * (_PLACES - len(found))
    wide = _BARS_WIDE / len(counts)
    ticks = [(wide * (place + 0.5), name) for place, name in enumerate(names)]
    return _bars(title, counts, names, ticks)


def _bars(
    title: str, counts: Sequence[int], hovers: Sequence[str], ticks: Sequence[tuple[float, str]]
) -> str:
    """Draw bars side by side over the whole width, with names below at places in it.

    Places at the end that have no `hovers` stay empty.
    """
    left, top = 44, 30
    most, wide = max(counts), _BARS_WIDE / len(counts)
    bottom = top + _BARS_HIGH
    parts = [
        _title(title),
        f'<text x="{left - 6}" y="{top + 5}" class="end">{most:,}</text>',
        f'<line x1="{left}" x2="{left + _BARS_WIDE}" y1="{bottom}" y2="{bottom}" class="grid"/>',
    ]
    for x, name in ticks:
        parts.append(f'<text x="{left + x:.1f}" y="{bottom + 16}" class="middle">{name}</text>')
    for place, (count, hover) in enumerate(zip(counts, hovers, strict=False)):
        tall = _BARS_HIGH * count / most
        parts.append(
            f'<rect x="{left + place * wide + 0.5:.1f}" y="{bottom - tall:.1f}" '
            f'width="{wide - 1:.1f}" height="{tall:.1f}" class="bar">'
            f"<title>{hover}: {count:,}</title></rect>"
        )
    return _svg(left + _BARS_WIDE + 20, bottom + 26, title, parts)


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values low..high, which lie at the places `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        """Return an axis that ends on ticks and holds all values."""
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 0.5, high + 0.5
        step = _step(high - low)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, start, end)

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        step = _step(self.high - self.low)
        return [
            round(self.low + n * step, 10) for n in range(round((self.high - self.low) / step) + 1)
        ]


def _step(span: float) -> float:
    """Return the 1, 2 or 5 times a power of ten that cuts a span into at most six."""
    power: float = 10.0 ** math.floor(math.log10(span / 6))
    return next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6.0001)


def _grid(axis: _Axis, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in axis.ticks():
        x = f"{axis.at(tick):.1f}"
        parts += [
            f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" class="grid"/>',
            f'<text x="{x}" y="{bottom + 16}" class="middle">{tick:g}</text>',
        ]
    return parts


def _short(label: str) -> str:
    """Return a label, of one that is too long the end."""
    return label if len(label) <= _LABEL_CHARACTERS else "…" + label[-_LABEL_CHARACTERS + 1 :]


def _title(text: str) -> str:
    return f'<text x="0" y="16" class="title">{escape(text)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
