"""The stack machine: the same values as Python's own for plain data, and no powers beyond."""

from __future__ import annotations

import collections
import io
import pickle
import random
from typing import Any

import pytest

from einthoven.errors import WeightsError
from einthoven.weights import pickle_reader
from einthoven.weights.pickle_reader import Constructor, read_pickle
from einthoven.weights.vocabulary import PyTorchNames


def _read(raw: bytes) -> Any:
    return read_pickle(io.BytesIO(raw), PyTorchNames("file"), file="file")


def _value(rng: random.Random, depth: int) -> Any:
    plain = [
        None, True, False, rng.randint(-(10**12), 10**12), rng.randint(0, 300), 2**70, rng.random(),
        -0.0, "", "ä€😀\n'\"\\", "x" * rng.randint(0, 400), b"\x00\xffabc", complex(1, -2),
    ]  # fmt: skip
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(plain)
    items = [_value(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    keys = ["a", 1, ("b", 2.5), None, b"c"]
    return rng.choice(
        [
            items,
            tuple(items),
            dict(zip(rng.sample(keys, len(items)), items, strict=True)),
            collections.OrderedDict(enumerate(items)),
            set(range(len(items))),
            frozenset("abc"[: len(items)]),
            [items, items],
        ]
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_those_that_python_reads(protocol: int) -> None:
    rng = random.Random(protocol)
    for _ in range(200):
        value = _value(rng, 3)
        raw = pickle.dumps(value, protocol)
        assert _read(raw) == pickle.loads(raw) == value


def test_values_that_are_shared_stay_shared_and_cycles_are_read() -> None:
    inner: list[Any] = [1]
    value: dict[str, Any] = {"a": inner, "b": inner}
    value["itself"] = value
    read = _read(pickle.dumps(value))
    assert read["a"] is read["b"]
    assert read["itself"] is read


def test_the_stream_is_left_behind_the_end_of_a_pickle() -> None:
    stream = io.BytesIO(pickle.dumps([1]) + pickle.dumps([2]) + b"rest")
    names = PyTorchNames("file")
    assert read_pickle(stream, names, file="file") == [1]
    assert read_pickle(stream, names, file="file") == [2]
    assert stream.read() == b"rest"


def test_nothing_is_looked_up_for_a_name() -> None:
    """A vocabulary is asked, and its answer taken, whatever the name means to Python."""

    class Names:
        asked: list[str]

        def __init__(self) -> None:
            self.asked = []

        def resolve(self, name: str) -> object:
            self.asked.append(name)
            return Constructor(name, lambda *arguments: (name, arguments))

        def persistent(self, key: object) -> object:
            raise AssertionError

    names = Names()
    raw = b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."
    assert read_pickle(io.BytesIO(raw), names, file="file") == ("os.system", ("ls",))
    assert names.asked == ["os.system"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"(S'ls'\nios\nsystem\n.", "os system"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"Pid\n.", "PERSID"),
        (b"\x80\x02K\x01)R.", "a call of a int"),
        (b"\x80\x02]}b.", "state for a list"),
        (b"\x80\x02K\x01K\x02\x93.", "an object named by a int"),
    ],
)
def test_operations_that_make_objects_are_refused(raw: bytes, said: str) -> None:
    with pytest.raises(WeightsError, match=f"file: holds .*{said}.*could run code"):
        _read(raw)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x80", b".", b"a.", b"\x80\x02K", b"h\x07.", b"t.", b"](K\x01e", b"}K\x01u.", b"\xff."],
)
def test_broken_programs_are_refused(raw: bytes) -> None:
    with pytest.raises(WeightsError, match="file: truncated or damaged"):
        _read(raw)


def test_copying_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_reader, "MAX_COPIED", 100)
    _read(pickle.dumps([set(range(40)), set(range(40))], 2))
    with pytest.raises(WeightsError, match="more than 100 values made from others"):
        _read(pickle.dumps([set(range(40)), set(range(40)), set(range(40))], 2))
