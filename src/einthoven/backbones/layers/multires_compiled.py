"""The compiled form of the multiresolution layer: a channel of a record never leaves the cache.

Needs numba (`pip install einthoven[fast]`). Sixteen channels of a record are turned into rows of a
few kilobytes, all scales are gone through there, and only the sum goes back to memory; written as
convolutions, every scale reads and writes whole activations several times. Nothing but the input is
kept for the gradient: its low-pass signals are computed again, row by row.

A row has room for zeros on the side that a shift looks to, so that no loop needs a special case at
the ends. Gradients of the parameters are summed within each record, then over the records: they do
not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from einthoven.backbones.layers.compiling import compiled, in_threads

__all__ = ["CompiledMultires"]

Floats = NDArray[Any]

LANES = 16  # channels at a time: in float32 they fill a line of the cache
_TURNED = 8  # samples of a row that are written together


@compiled(reassociate=True)
def _to_rows(record, channels, rows, stride, tokens):  # type: ignore[no-untyped-def]
    whole = tokens - tokens % _TURNED
    for t in range(0, whole, _TURNED):
        for lane in range(LANES):
            values = record[t * channels + lane :]
            row = rows[lane * stride + t : lane * stride + t + _TURNED]
            for i in range(_TURNED):
                row[i] = values[i * channels]
    for t in range(whole, tokens):
        for lane in range(LANES):
            rows[lane * stride + t] = record[t * channels + lane]


@compiled(reassociate=True)
def _from_rows(record, channels, rows, stride, tokens):  # type: ignore[no-untyped-def]
    for t in range(tokens):
        values, column = record[t * channels : t * channels + LANES], rows[t:]
        for lane in range(LANES):
            values[lane] = column[lane * stride]


@compiled()
def _decode(rows):  # type: ignore[no-untyped-def]
    # The bits of bfloat16, which `_to_rows` took for whole numbers, to the values.
    bits = rows.view(np.uint32)
    for i in range(rows.size):
        bits[i] = np.uint32(rows[i]) << np.uint32(16)


@compiled()
def _encode(rows):  # type: ignore[no-untyped-def]
    # Values to the bits of the nearest bfloat16, as whole numbers; NaN stays NaN.
    bits = rows.view(np.uint32)
    for i in range(rows.size):
        value = bits[i]
        odd = (value >> np.uint32(16)) & np.uint32(1)
        rounded = (value + np.uint32(0x7FFF) + odd) >> np.uint32(16)
        missing = (value & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        rows[i] = np.uint32(0x7FC0) if missing else rounded


@compiled(reassociate=True)
def _put(x, a, target):  # type: ignore[no-untyped-def]
    for t in range(target.size):
        target[t] = a * x[t]


@compiled(reassociate=True)
def _add(x, a, total):  # type: ignore[no-untyped-def]
    for t in range(total.size):
        total[t] += a * x[t]


@compiled(reassociate=True)
def _put_two(x, y, a, b, target):  # type: ignore[no-untyped-def]
    for t in range(target.size):
        target[t] = a * x[t] + b * y[t]


@compiled(reassociate=True)
def _add_two(x, y, a, b, total):  # type: ignore[no-untyped-def]
    for t in range(total.size):
        total[t] += a * x[t] + b * y[t]


@compiled(reassociate=True)
def _scale(now, past, a, b, total, c, d, low):  # type: ignore[no-untyped-def]
    # What the high-pass filter adds, and the next low-pass signal.
    for t in range(total.size):
        total[t] += a * now[t] + b * past[t]
        low[t] = c * now[t] + d * past[t]


@compiled(reassociate=True)
def _products(above, below, now, past, sums):  # type: ignore[no-untyped-def]
    sums[:] = 0
    p, q, r, s = sums
    for t in range(now.size):
        p += above[t] * past[t]
        q += above[t] * now[t]
        r += below[t] * past[t]
        s += below[t] * now[t]
    sums[0], sums[1], sums[2], sums[3] = p, q, r, s


@compiled(reassociate=True)
def _forward_row(low, other, total, filters, weights, room):  # type: ignore[no-untyped-def]
    tokens, scales = total.size, weights.size - 2
    _put(low[room:], weights[scales + 1], total)
    for i in range(scales):
        back = room - min(1 << i, room)
        now, past, weight = low[room:], low[back : back + tokens], weights[scales - i]
        high_past, high_now = weight * filters[2], weight * filters[3]
        target = other[room:]
        _scale(now, past, high_now, high_past, total, filters[1], filters[0], target)
        low, other = other, low
    _add(low[room:], weights[0], total)


@compiled(reassociate=True)
def _forward(x, filters, weights, out, work, channels, room):  # type: ignore[no-untyped-def]
    # One record, x and out (tokens, channels).
    tokens, count = x.size // channels, weights.size // channels
    stride = room + tokens
    rows, other = work[: LANES * stride], work[LANES * stride : (LANES + 1) * stride]
    totals = work[(LANES + 1) * stride :]
    for first in range(0, channels, LANES):
        _to_rows(x[first:], channels, rows[room:], stride, tokens)
        if x.itemsize == 2:
            _decode(rows)
        for lane in range(LANES):
            c = first + lane
            low, total = rows[lane * stride : (lane + 1) * stride], totals[lane * tokens :]
            factors = weights[c * count : (c + 1) * count]
            _forward_row(low, other, total[:tokens], filters[4 * c : 4 * c + 4], factors, room)
        if x.itemsize == 2:
            _encode(totals)
        _from_rows(out[first:], channels, totals, tokens, tokens)


@compiled(reassociate=True)
def _backward_row(lows, above, below, filters, weights, to_filters, to_weights, room):  # type: ignore[no-untyped-def]
    # `lows` begins with the row of x, and ends with that of its gradient. `above` is the gradient
    # of the sum, `below` two rows for those of the low-pass signals.
    tokens, scales = above.size - room, weights.size - 2
    stride = room + tokens
    sums = np.empty_like(filters)
    for i in range(scales):
        low, target = lows[i * stride : (i + 1) * stride], lows[(i + 1) * stride + room :]
        back = room - min(1 << i, room)
        past = low[back : back + tokens]
        _put_two(low[room:], past, filters[1], filters[0], target[:tokens])
    grad, other = below[:stride], below[stride:]
    _put(above, weights[0], grad[:tokens])
    lowest = lows[scales * stride + room : (scales + 1) * stride]
    _products(above, above, lowest, lows[room:stride], sums)
    to_weights[0], to_weights[scales + 1] = sums[1], sums[0]
    to_filters[:] = 0
    for i in range(scales - 1, -1, -1):
        low, shift = lows[i * stride : (i + 1) * stride], min(1 << i, room)
        past, weight = low[room - shift : room - shift + tokens], weights[scales - i]
        _products(above, grad, low[room:], past, sums)
        to_weights[scales - i] = filters[2] * sums[0] + filters[3] * sums[1]
        for k in range(2):
            to_filters[k] += sums[2 + k]
            to_filters[2 + k] += weight * sums[k]
        target = other[:tokens]
        _put_two(grad, grad[shift:], filters[1], filters[0], target)
        _add_two(above, above[shift:], weight * filters[3], weight * filters[2], target)
        grad, other = other, grad
    _put_two(grad, above, 1, weights[scales + 1], lows[room:stride])


@compiled(reassociate=True)
def _backward(x, grad, filters, weights, to_x, to_filters, to_weights, work, channels, room):  # type: ignore[no-untyped-def]
    # One record; the gradients of the parameters are this record's part.
    tokens, count = x.size // channels, weights.size // channels
    stride = room + tokens
    rows, above = work[: LANES * stride], work[LANES * stride : 2 * LANES * stride]
    below = work[2 * LANES * stride : (2 * LANES + 2) * stride]
    lows = work[(2 * LANES + 2) * stride :]
    for first in range(0, channels, LANES):
        _to_rows(x[first:], channels, rows[room:], stride, tokens)
        _to_rows(grad[first:], channels, above, stride, tokens)
        if x.itemsize == 2:
            _decode(rows)
            _decode(above)
        for lane in range(LANES):
            c = first + lane
            own, ends = slice(lane * stride, (lane + 1) * stride), slice(c * count, (c + 1) * count)
            lows[:stride] = rows[own]
            bank = slice(4 * c, 4 * c + 4)
            _backward_row(
                lows, above[own], below, filters[bank], weights[ends],
                to_filters[bank], to_weights[ends], room,
            )  # fmt: skip
            rows[own] = lows[:stride]
        if x.itemsize == 2:
            _encode(rows)
        _from_rows(to_x[first:], channels, rows[room:], stride, tokens)


@compiled(reassociate=True)
def _forward_records(x, filters, weights, out, work, channels, room, first, stop):  # type: ignore[no-untyped-def]
    for record in range(first, stop):
        _forward(x[record], filters, weights, out[record], work, channels, room)


@compiled(reassociate=True)
def _backward_records(  # type: ignore[no-untyped-def]
    x, grad, filters, weights, to_x, to_filters, to_weights, work, channels, room, first, stop
):
    for record in range(first, stop):
        _backward(
            x[record], grad[record], filters, weights, to_x[record], to_filters[record],
            to_weights[record], work, channels, room,
        )  # fmt: skip


def _room(tokens: int, scales: int) -> int:
    """Zeros beside a row: the longest shift, beyond the whole row at most."""
    return min(1 << max(scales - 1, 0), tokens)


class CompiledMultires(Function):
    """The sum over all scales, see `einthoven.backbones.layers.multires.multires`.

    ``apply(x, filters, weights)`` takes x of shape (batch, tokens, channels), channels in sixteens;
    the filters (channels, 4), low-pass then high-pass and past before present; and weights
    (channels, scales + 2). All are float32 or float64 alike, or x is bfloat16 and the parameters
    float32, in which the sums are taken then. On the CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, weights: Tensor) -> Tensor:
        """(batch, tokens, channels) to the same shape."""
        x, filters, weights = x.contiguous(), filters.contiguous(), weights.contiguous()
        ctx.save_for_backward(x, filters, weights)
        batch, tokens, channels = x.shape
        room, out = _room(tokens, weights.shape[1] - 2), torch.empty_like(x)
        flat = _rows(x), _flat(filters), _flat(weights), _rows(out)

        def share(first: int, stop: int) -> None:
            size = (LANES + 1) * (room + tokens) + LANES * tokens
            work = np.zeros(size, flat[1].dtype)
            _forward_records(*flat, work, channels, room, first, stop)

        in_threads(share, batch)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, filters and weights."""
        x, filters, weights = ctx.saved_tensors
        batch, tokens, channels = x.shape
        scales = weights.shape[1] - 2
        room, to_x = _room(tokens, scales), torch.empty_like(x)
        to_filters, to_weights = (p.new_zeros(batch, p.numel()) for p in (filters, weights))
        above = grad.to(x.dtype).contiguous()
        flat = _rows(x), _rows(above), _flat(filters), _flat(weights), _rows(to_x)
        parts = to_filters.numpy(), to_weights.numpy()

        def share(first: int, stop: int) -> None:
            work = np.zeros((2 * LANES + 3 + scales) * (room + tokens), parts[0].dtype)
            _backward_records(*flat, *parts, work, channels, room, first, stop)

        in_threads(share, batch)
        sums = to_filters.sum(0).view_as(filters), to_weights.sum(0).view_as(weights)
        return to_x, *sums


def _rows(x: Tensor) -> Floats:
    """One row a record; the bits of bfloat16, which NumPy lacks, as whole numbers."""
    flat = x.detach().view(len(x), -1) if len(x) else x.detach().view(0, 0)
    found: Floats = flat.view(torch.uint16).numpy() if x.itemsize == 2 else flat.numpy()
    return found


def _flat(x: Tensor) -> Floats:
    flat: Floats = x.detach().view(-1).numpy()
    return flat
