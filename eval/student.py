"""Student's t distribution, for which alone SciPy would be 140 MB of every installation."""

from __future__ import annotations

import math

_TERMS = 10_000
"""Of the continued fraction; it has converged after about √(degrees of freedom)."""
_TINY = 1e-300
"""Stands for 0 in a denominator."""


def two_sided_p(t: float, freedom: int) -> float:
    """Return how probable a value at least as far from 0 as t is.

    Args:
        t: any, infinite too.
        freedom: degrees of freedom, ≥ 1.

    Source: Abramowitz and Stegun 1964, 26.7.1: it is I_x(n/2, 1/2), x = n / (n + t²).
    """
    if math.isinf(t):
        return 0.0
    x, a, b = freedom / (freedom + t * t), freedom / 2, 0.5
    if x < (a + 1) / (a + b + 2):
        return _incomplete_beta(x, 1 - x, a, b)
    return 1 - _incomplete_beta(t * t / (freedom + t * t), x, b, a)


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """Return I_x(a, b) for x < (a + 1) / (a + b + 2), where its fraction converges fast.

    Args:
        x: from 0 to 1.
        rest: 1 − x.
        a: above 0.
        b: above 0.

    Source: Abramowitz and Stegun 26.5.8, evaluated as Thompson and Barnett 1986 (after Lentz).
    """
    if x == 0:
        return 0.0
    beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * math.log(rest) - beta) / a if rest else 1.0
    value, above, below = 1.0, math.inf, 1.0
    for term in range(1, _TERMS):
        m, is_odd = divmod(term, 2)
        if is_odd:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        above = 1 + factor / above or _TINY
        below = 1 / (1 + factor * below or _TINY)
        value *= above * below
        if abs(above * below - 1) < 1e-16:
            break
    return front * value
