from __future__ import annotations

import math

import pytest
from scipy.special import stdtr

from dupmae.eval.student import two_sided_p


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 299, 322, 10_569])
def test_p_is_scipys(freedom: int) -> None:
    for t in (0.0, 1e-3, 0.01, 0.5, 1.0, 1.2, 1.5, 2.0, 3.0, 8.0, 30.0, 1e4):
        expected = 2 * stdtr(freedom, -t)
        assert two_sided_p(t, freedom) == pytest.approx(expected, rel=1e-10, abs=1e-280)
        assert two_sided_p(-t, freedom) == two_sided_p(t, freedom)


def test_p_of_an_infinite_t_is_0() -> None:
    assert two_sided_p(math.inf, 5) == two_sided_p(-math.inf, 5) == 0
