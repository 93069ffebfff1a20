"""The straight-line insides of the compiled preparation: sixteen leads in every instruction.

Needs numba. A *lane* is one lead of one record, a *vector* the same value of sixteen of them, so
that no step of a transform mixes the elements of a vector: every butterfly is plain arithmetic on
whole vectors, and only reading and writing records turns rows into columns. Sixteen float32 are one
AVX-512 register; on other processors the compiler splits a vector into what they have.

Each public function is an intrinsic of numba: Python that runs while a loop is compiled and spells
out its inside in LLVM's language. Work arrays are flat and float32; there, places count vectors,
and a complex value is two vectors in a row, real part first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from einthoven.signals.butterflies import COST, Pair, dft

LANES = 16
ENDS = 10  # sums kept in registers at a time

_FLOAT, _I32, _INT = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_WHOLE = ir.VectorType(ir.IntType(16), LANES)
# A product and a sum may become one instruction; nothing else about the arithmetic may change.
_FLAGS = ("contract",)


class Vector:
    """A vector of the code that is being written; arithmetic on it writes instructions."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, other.value, flags=_FLAGS))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, other.value, flags=_FLAGS))

    def __mul__(self, other: Vector | float) -> Vector:
        by = other.value if isinstance(other, Vector) else ir.Constant(_VECTOR, [other] * LANES)
        return Vector(self.builder, self.builder.fmul(self.value, by, flags=_FLAGS))

    def __neg__(self) -> Vector:
        return Vector(self.builder, self.builder.fneg(self.value))


class _Array:
    """A flat array of the code that is being written."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self.builder, self.kind = builder, kind
        self.data = context.make_array(kind)(context, builder, value).data

    def scalar(self, index: Any) -> Any:
        """One element."""
        return self.builder.load(self.builder.gep(self.data, [index]))

    def spread(self, index: Any) -> Vector:
        """One element in every lane."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = self.builder.insert_element(undefined, self.scalar(index), _I32(0))
        return Vector(self.builder, _shuffled(self.builder, first, undefined, [0] * LANES))

    def address(self, index: Any, kind: Any = _VECTOR) -> Any:
        """Where the element is, as a pointer to a vector."""
        return self.builder.bitcast(self.builder.gep(self.data, [index]), kind.as_pointer())

    def row(self, index: Any) -> Any:
        """Elements in a row from one on, float32 or int16, as a vector of float32."""
        if isinstance(self.kind.dtype, types.Float):
            return self.builder.load(self.address(index), align=4)
        whole = self.builder.load(self.address(index, _WHOLE), align=2)
        return self.builder.sitofp(whole, _VECTOR)

    def vector(self, place: Any) -> Vector:
        """The vector at a position."""
        address = self.address(self.builder.mul(place, _INT(LANES)))
        return Vector(self.builder, self.builder.load(address, align=4))

    def put_vector(self, place: Any, x: Vector) -> None:
        """Write a vector."""
        address = self.address(self.builder.mul(place, _INT(LANES)))
        self.builder.store(x.value, address, align=4)

    def pair(self, place: Any) -> Pair:
        """The complex value at a position that counts complex values."""
        first = self.builder.mul(place, _INT(2))
        return Pair(self.vector(first), self.vector(self.builder.add(first, _INT(1))))

    def put_pair(self, place: Any, x: Pair) -> None:
        """Write a complex value."""
        first = self.builder.mul(place, _INT(2))
        self.put_vector(first, x.re)
        self.put_vector(self.builder.add(first, _INT(1)), x.im)

    def spread_pair(self, place: Any) -> Pair:
        """Two elements in a row, each in every lane."""
        first = self.builder.mul(place, _INT(2))
        return Pair(self.spread(first), self.spread(self.builder.add(first, _INT(1))))


def _shuffled(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), list(order)))


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Sixteen vectors as a square, turned: four rounds of a riffle shuffle."""
    half = LANES // 2
    halves = [[start + i + k for i in range(half) for k in (0, LANES)] for start in (0, half)]
    for _ in range(LANES.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [_shuffled(builder, a, b, order) for a, b in pairs for order in halves]
    return rows


def _variable(builder: Any, first: Vector) -> Any:
    """A vector that a loop may change; the compiler finds it a register."""
    place = cgutils.alloca_once(builder, _VECTOR)  # type: ignore[no-untyped-call]
    builder.store(first.value, place)
    return place


def _inline(constants: int = 0) -> Callable[[Callable[..., None]], Any]:
    """Make an intrinsic of a function that writes code.

    The function is called with the builder, its first arguments as the integers that they are in
    the source, arrays as `_Array`, and integers as values of the program.
    """

    def decorate(body: Callable[..., None]) -> Any:
        def typing(_: Any, *kinds: Any) -> tuple[Any, Callable[..., Any]]:
            known = [kind.literal_value for kind in kinds[:constants]]
            rest = [types.intp if isinstance(k, types.Integer) else k for k in kinds[constants:]]

            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                arguments = [
                    _Array(context, builder, kind, value)
                    if isinstance(kind, types.Array)
                    else value
                    for kind, value in zip(rest, values[constants:], strict=True)
                ]
                body(builder, *known, *arguments)
                return context.get_dummy_value()

            return types.void(*kinds[:constants], *rest), generate

        # numba reads names from here; the builder's takes the place of the typing context's.
        typing.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        return intrinsic(prefer_literal=True)(typing)

    return decorate


@_inline()
def load_tile(b: Any, rows: Any, first: Any, last: Any, length: Any, t: Any, target: Any) -> None:
    """Sixteen samples of sixteen rows, from `t` on, to sixteen vectors; `last` fills missing rows.

    Rows lie one after the other, `length` values each, float32 or int16.
    """
    loaded = []
    for lane in range(LANES):
        row = b.add(first, _INT(lane))
        row = b.select(b.icmp_signed("<", row, last), row, last)
        loaded.append(rows.row(b.add(b.mul(row, length), t)))
    for lane, value in enumerate(_transposed(b, loaded)):
        target.put_vector(b.add(t, _INT(lane)), Vector(b, value))


@_inline()
def butterflies(
    b: Any,
    radix: Any,
    count: Any,
    source: Any,
    first: Any,
    jump: Any,
    step: Any,
    target: Any,
    start: Any,
    hop: Any,
    stride: Any,
    twiddles: Any,
    row: Any,
    skip: Any,
) -> None:
    """Transforms of `radix` complex values each, times their rows of twiddle factors.

    Each reads values `step` apart and writes them `stride` apart; from one to the next, reading
    moves by `jump`, writing by `hop` and the row of factors by `skip`.
    """
    for size in COST:
        with (
            b.if_then(b.icmp_signed("==", radix, _INT(size))),
            cgutils.for_range(b, count) as loop,
        ):
            read, write, factors = (
                b.add(begin, b.mul(by, loop.index))
                for begin, by in ((first, jump), (start, hop), (row, skip))
            )
            places = [b.add(read, b.mul(step, _INT(j))) for j in range(size)]
            factors = b.mul(factors, _INT(size - 1))
            for j, value in enumerate(dft([source.pair(place) for place in places])):
                if j:
                    value = value.times(twiddles.spread_pair(b.add(factors, _INT(j - 1))))
                target.put_pair(b.add(write, b.mul(stride, _INT(j))), value)


@_inline()
def unfold(
    b: Any,
    packed: Any,
    place: Any,
    mirror: Any,
    turns: Any,
    shifts: Any,
    coarse: Any,
    fine: Any,
    spectrum: Any,
    k: Any,
) -> None:
    """Bin k of a real signal, doubled and shifted, from the transform of its even and odd samples.

    A lane's shift is a product of two complex values, so that a short table serves every bin.
    """
    near, far = packed.pair(place), packed.pair(mirror).conjugate()
    odd = near.minus(far).times(turns.spread_pair(k)).turned()
    shift = shifts.pair(coarse).times(shifts.pair(fine))
    spectrum.put_pair(k, near.plus(far).times(shift).plus(odd.times(shift)))


@_inline()
def project(
    b: Any,
    spectrum: Any,
    begin: Any,
    count: Any,
    factors: Any,
    columns: Any,
    first: Any,
    ends: Any,
) -> None:
    """Add vectors from `begin` on, times `ENDS` columns of factors from `first` on, to `ends`."""
    places = [b.add(first, _INT(column)) for column in range(ENDS)]
    sums = [_variable(b, ends.vector(place)) for place in places]
    with cgutils.for_range(b, count) as loop:
        index = b.add(begin, loop.index)
        value = spectrum.vector(index)
        row = b.mul(index, columns)
        for place, total in zip(places, sums, strict=True):
            term = value * factors.spread(b.add(row, place))
            b.store((Vector(b, b.load(total)) + term).value, total)
    for place, total in zip(places, sums, strict=True):
        ends.put_vector(place, Vector(b, b.load(total)))


@_inline(constants=1)
def fold(
    b: Any,
    both: int,
    spectrum: Any,
    k: Any,
    mirror: Any,
    gains: Any,
    turns: Any,
    packed: Any,
) -> None:
    """Values k and `mirror` of even and odd samples' transform, from those bins of their signal.

    Without `both`, bin `mirror` is zero. Parts are exchanged, which turns the transform that
    follows into an inverse one.
    """
    total = odd = spectrum.pair(k).scaled(gains.spread(k))
    if both:
        far = spectrum.pair(mirror).scaled(gains.spread(mirror)).conjugate()
        total, odd = total.plus(far), odd.minus(far)
    odd = odd.times(turns.spread_pair(k))
    for place, value in ((k, total.plus(odd)), (mirror, total.minus(odd).conjugate())):
        packed.put_pair(place, Pair(value.im, value.re))


@_inline()
def store_tile(
    b: Any,
    packed: Any,
    t: Any,
    ends: Any,
    rank: Any,
    to_crop: Any,
    length: Any,
    rows: Any,
    first: Any,
    count: Any,
) -> None:
    """Sixteen samples from `t` on, with what the ends of the crop add, to `count` rows."""
    one = _INT(1)
    # Parts are exchanged since `fold`, so even and odd samples are.
    places = [b.xor(b.add(t, _INT(i)), one) for i in range(LANES)]
    sums = [_variable(b, packed.vector(place)) for place in places]
    with cgutils.for_range(b, rank) as loop:
        end = ends.vector(loop.index)
        start = b.add(b.mul(loop.index, length), t)
        for i, total in enumerate(sums):
            term = end * to_crop.spread(b.add(start, _INT(i)))
            b.store((Vector(b, b.load(total)) + term).value, total)
    turned = _transposed(b, [b.load(total) for total in sums])
    for lane, value in enumerate(turned):
        with b.if_then(b.icmp_signed("<", _INT(lane), count), likely=True):
            start = b.add(b.mul(b.add(first, _INT(lane)), length), t)
            b.store(value, rows.address(start), align=4)
