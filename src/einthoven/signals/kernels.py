"""The loops of the compiled preparation, sixteen rows at a time from first to last.

Needs numba. What is inside the loops, and how values lie in memory, is in `lanes`. numba keeps what
it has compiled for as long as this file is unchanged: after a change in `lanes` or `butterflies`
alone, remove ``__pycache__``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from einthoven.signals.lanes import (
    ENDS,
    LANES,
    butterflies,
    fold,
    load_tile,
    project,
    store_tile,
    unfold,
)

FINE = 32  # bins between two phases that are looked up
_TILE = 64  # bins whose spectra stay in the first-level cache


def _compile(*signature: str) -> Callable[[Callable[..., None]], Any]:
    # Sums may be taken in another order, so that they fill the processor's registers.
    fast = {"reassoc", "contract", "nsz"}
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast}
    njit: Any = numba.njit

    def compiled(function: Callable[..., None]) -> Any:
        try:
            return njit(*signature, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder that could hold its cache
            return njit(*signature, **options)(function)

    return compiled


# Signatures are given where numba would compile one function for each constant argument.
@_compile("void(i8, i8, f4[::1], i8, i8, i8, f4[::1], i8, i8, i8, f4[::1], i8, i8)")
def _butterflies(  # type: ignore[no-untyped-def]
    radix, count, source, first, jump, step, target, start, hop, stride, twiddles, row, skip
):
    # A function of its own, so that every radix is compiled once.
    butterflies(
        radix, count, source, first, jump, step, target, start, hop, stride, twiddles, row, skip
    )


@_compile("void(f4[::1], f4[::1], UniTuple(i8, 2), i8, i8, f4[::1], f4[::1])")
def _two_passes(source, target, radices, n, stride, twiddles, scratch):  # type: ignore[no-untyped-def]
    # What lies between them, few values at a time, never leaves the first-level cache.
    first, second = radices
    size = first * second
    count = n // size
    rows = n // first * (first - 1)
    later = twiddles[2 * rows :]
    for p in range(count):
        for q in range(stride):
            place, step = stride * p + q, stride * count
            _butterflies(
                first, second, source, place, step, step * second,
                scratch, 0, first, 1, twiddles, p, count,
            )  # fmt: skip
            _butterflies(
                second, first, scratch, 0, 1, first,
                target, stride * size * p + q, stride, stride * first, later, p, 0,
            )  # fmt: skip


@_compile()
def _transform(source, target, radices, n, twiddles, scratch):  # type: ignore[no-untyped-def]
    # Stockham's transform, which leaves values in order without a reversal of bits. The result is
    # in the first of the two arrays that are returned.
    stride = 1
    for i in range(0, radices.size - 1, 2):
        first, second = radices[i], radices[i + 1]
        _two_passes(source, target, (first, second), n, stride, twiddles, scratch)
        rows = n // first * (first - 1) + n // first // second * (second - 1)
        twiddles = twiddles[2 * rows :]
        n //= first * second
        stride *= first * second
        source, target = target, source
    if n > 1:
        _butterflies(n, stride, source, 0, 1, stride, target, 0, 1, stride, twiddles, 0, 0)
        source, target = target, source
    return source, target


@_compile()
def _shifts(begins, leads, first, last, circle, bins, shifts):  # type: ignore[no-untyped-def]
    period = circle.size // 2
    coarse = bins // FINE + 1
    for lane in range(LANES):
        start = begins[min(first + lane, last) // leads] % period
        for begin, count, step in ((0, coarse, start * FINE % period), (coarse, FINE, start)):
            turn = 0
            for k in range(begin, begin + count):
                shifts[2 * LANES * k + lane] = circle[2 * turn]
                shifts[2 * LANES * k + LANES + lane] = circle[2 * turn + 1]
                turn += step
                turn -= period if turn >= period else 0


@_compile()
def _spectrum(packed, tables, bins, half, shifts, spectrum, ends, part):  # type: ignore[no-untyped-def]
    fine = bins // FINE + 1
    columns = tables.from_spectrum.size // (2 * bins)
    ends[:] = 0
    for begin in range(0, bins, _TILE):
        end = min(begin + _TILE, bins)
        for k in range(begin, end):
            place = k if k < half else k - half
            mirror = half - k if k else 0
            coarse, within = k // FINE, fine + k % FINE
            unfold(packed, place, mirror, tables.unfolding, shifts, coarse, within, spectrum, k)
        # Sums of sums, which round less than one long sum.
        part[:] = 0
        for column in range(0, columns, ENDS):
            factors, count = tables.from_spectrum, 2 * (end - begin)
            project(spectrum, 2 * begin, count, factors, columns, column, part)
        for i in range(ends.size):
            ends[i] += part[i]


@_compile()
def _filtered(spectrum, tables, bins, half, packed):  # type: ignore[no-untyped-def]
    if bins > half:
        # The bin at half the rate has no imaginary part.
        spectrum[2 * LANES * half + LANES : 2 * LANES * (half + 1)] = 0
    for k in range(half // 2 + 1):
        mirror = half - k
        if mirror < bins:
            fold(1, spectrum, k, mirror, tables.gains, tables.folding, packed)
        elif k < bins:
            fold(0, spectrum, k, mirror, tables.gains, tables.folding, packed)
        else:
            packed[2 * LANES * k : 2 * LANES * (k + 1)] = 0
            packed[2 * LANES * mirror : 2 * LANES * (mirror + 1)] = 0


@_compile()
def _group(tables, rows, begins, leads, first, last, out, space):  # type: ignore[no-untyped-def]
    # Sixteen rows from `first` on, or up to `last`.
    samples, resampled, window, bins = tables.lengths
    left, right, shifts, ends, part, scratch = space
    for t in range(0, samples - LANES + 1, LANES):
        load_tile(rows, first, last, samples, t, left)
    load_tile(rows, first, last, samples, samples - LANES, left)
    radices, twiddles = tables.passes_in, tables.twiddles_in
    left, right = _transform(left, right, radices, samples // 2, twiddles, scratch)
    _shifts(begins, leads, first, last, tables.circle, bins, shifts)
    _spectrum(left, tables, bins, samples // 2, shifts, right, ends, part)
    _filtered(right, tables, bins, resampled // 2, left)
    radices, twiddles = tables.passes_out, tables.twiddles_out
    left, right = _transform(left, right, radices, resampled // 2, twiddles, scratch)
    count = last - first + 1
    for i in range(tables.depths.size):
        t = min(i * LANES, window - LANES)
        store_tile(left, t, ends, tables.depths[i], tables.to_crop, window, out, first, count)


@_compile()
def _standardise(values, flat):  # type: ignore[no-untyped-def]
    total, squares = 0.0, 0.0
    for i in range(values.size):
        value = np.float64(values[i])
        total += value
        squares += value * value
    mean = total / values.size
    deviation = math.sqrt(max(squares / values.size - mean * mean, 0.0))
    factor = 0.0 if deviation <= flat * max(abs(mean), 1.0) else 1.0 / deviation
    for i in range(values.size):
        values[i] = (values[i] - np.float32(mean)) * np.float32(factor)


@_compile()
def prepare_rows(  # type: ignore[no-untyped-def]
    tables, rows, begins, leads, first, stop, unit, out, leads_together, flat, space
):
    window = tables.lengths[2]
    for record in range(first, stop, unit):
        end = min(record + unit, stop) * leads
        for row in range(record * leads, end, LANES):
            _group(tables, rows, begins, leads, row, end - 1, out, space)
        if leads_together:
            for row in range(record * leads, end, leads_together):
                _standardise(out[row * window : (row + leads_together) * window], flat)
