"""Short discrete Fourier transforms in straight lines, for whatever can be added and multiplied.

`dft` is written for values whose two parts are real numbers of any kind: floats when it is tested,
vectors of a program being written when `lanes` has it spell out the inside of a compiled loop.
Transforms of 2 to 5 points are the textbook ones; longer ones are put together by the rule of
Cooley and Tukey (Mathematics of Computation 19, 1965).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

# Passes over the data that a compiled transform can make, and what one costs, measured: a pass
# waits for memory up to ten points, and for arithmetic from there on.
COST = {2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 8: 1.0, 9: 1.1, 10: 1.05, 16: 1.5}


class Pair(NamedTuple):
    """A complex number whose parts are of any kind that knows + - * and unary minus."""

    re: Any
    im: Any

    def plus(self, other: Pair) -> Pair:
        """The sum."""
        return Pair(self.re + other.re, self.im + other.im)

    def minus(self, other: Pair) -> Pair:
        """The difference."""
        return Pair(self.re - other.re, self.im - other.im)

    def scaled(self, factor: Any) -> Pair:
        """The product with a real factor."""
        return Pair(self.re * factor, self.im * factor)

    def times(self, other: Pair) -> Pair:
        """The product."""
        real = self.re * other.re - self.im * other.im
        return Pair(real, self.re * other.im + self.im * other.re)

    def conjugate(self) -> Pair:
        """The conjugate."""
        return Pair(self.re, -self.im)

    def turned(self) -> Pair:
        """The product with -i."""
        return Pair(self.im, -self.re)


def dft(x: Sequence[Pair]) -> list[Pair]:
    """The transform ``X[k] = sum over t of x[t] exp(-2 pi i k t / n)``.

    Parameters
    ----------
    x : sequence of Pair
        n values, n a product of 2, 3, 4 and 5.

    Returns
    -------
    list of Pair
        n values, in the order of k.
    """
    n = len(x)
    if n in _SHORT:
        return _SHORT[n](x)
    inner = next(r for r in (4, 5, 3, 2) if n % r == 0)
    parts = [dft(x[j::inner]) for j in range(inner)]
    out: list[Pair] = [x[0]] * n
    for k in range(n // inner):
        column = [_rotated(part[k], j * k, n) for j, part in enumerate(parts)]
        out[k :: n // inner] = dft(column)
    return out


def _rotated(x: Pair, steps: int, n: int) -> Pair:
    """The product with exp(-2 pi i steps / n)."""
    if steps == 0:
        return x
    if 4 * steps == n:
        return x.turned()
    turn = cmath.exp(-2j * math.pi * steps / n)
    return x.times(Pair(turn.real, turn.imag))


def _dft1(x: Sequence[Pair]) -> list[Pair]:
    return list(x)


def _dft2(x: Sequence[Pair]) -> list[Pair]:
    return [x[0].plus(x[1]), x[0].minus(x[1])]


def _dft3(x: Sequence[Pair]) -> list[Pair]:
    both = x[1].plus(x[2])
    turned = x[1].minus(x[2]).scaled(math.sqrt(0.75)).turned()
    middle = x[0].minus(both.scaled(0.5))
    return [x[0].plus(both), middle.plus(turned), middle.minus(turned)]


def _dft4(x: Sequence[Pair]) -> list[Pair]:
    even, other = x[0].plus(x[2]), x[0].minus(x[2])
    odd, turned = x[1].plus(x[3]), x[1].minus(x[3]).turned()
    return [even.plus(odd), other.plus(turned), even.minus(odd), other.minus(turned)]


def _dft5(x: Sequence[Pair]) -> list[Pair]:
    cosines = math.cos(0.4 * math.pi), math.cos(0.8 * math.pi)
    sines = math.sin(0.4 * math.pi), math.sin(0.8 * math.pi)
    near, far = x[1].plus(x[4]), x[2].plus(x[3])
    near_odd, far_odd = x[1].minus(x[4]), x[2].minus(x[3])
    a = x[0].plus(near.scaled(cosines[0])).plus(far.scaled(cosines[1]))
    b = x[0].plus(near.scaled(cosines[1])).plus(far.scaled(cosines[0]))
    p = near_odd.scaled(sines[0]).plus(far_odd.scaled(sines[1])).turned()
    q = near_odd.scaled(sines[1]).minus(far_odd.scaled(sines[0])).turned()
    return [x[0].plus(near).plus(far), a.plus(p), b.plus(q), b.minus(q), a.minus(p)]


_SHORT = {1: _dft1, 2: _dft2, 3: _dft3, 4: _dft4, 5: _dft5}


@lru_cache(maxsize=256)
def passes(n: int) -> tuple[int, ...] | None:
    """The cheapest passes for a transform of n points, largest first; None where there are none.

    Their product is n.
    """
    if n == 1:
        return ()
    ways = [(radix, passes(n // radix)) for radix in COST if n % radix == 0]
    found = [
        tuple(sorted((radix, *rest), reverse=True)) for radix, rest in ways if rest is not None
    ]
    return min(found, key=lambda way: (sum(COST[r] for r in way), way), default=None)
