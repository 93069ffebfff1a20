"""Read a pickle as data: nothing in it is imported, looked up or called.

A pickle is a program for a small stack machine. Python's own machine imports whatever the program
names and calls it; this one has no such powers. Names are handed to a `Vocabulary`, which answers
with a value of ours or refuses, and the only "calls" are of our own `Constructor`s. The opcodes are
decoded by `pickletools`, which builds nothing; what it decodes is carried out here.
"""

from __future__ import annotations

import io
import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from types import NoneType
from typing import Any, NoReturn, Protocol

from einthoven.errors import WeightsError

__all__ = [
    "AGAIN",
    "Attributes",
    "Constructor",
    "Stateful",
    "Vocabulary",
    "plain_keys",
    "read_pickle",
    "refuse_object",
]

AGAIN = "fetch the file again and compare its size and checksum with the publisher's."
_RESAVE = (
    "do not open it with any other loader unless you trust who made it; if you do, save its "
    "tensors alone there, with safetensors.torch.save_file."
)
# A checkpoint of 90 million parameters with its optimiser takes some 30,000 operations. What they
# push is bounded by their number; what a constructor copies has a bound of its own, because the
# same long list may be named again and again.
MAX_OPERATIONS = 2_000_000
MAX_COPIED = 16_000_000


@dataclass(frozen=True, slots=True)
class Constructor:
    """A name that a pickle may call, and what we do instead.

    Attributes
    ----------
    name : str
        What the pickle calls it.
    make : callable
        Makes our value from the arguments, which are plain values or ours.
    called : bool
        Whether it may be called. Otherwise it is a class of which a pickle may make an object,
        from nothing, and then say its attributes; whatever else it asks of the class is refused.
    """

    name: str
    make: Callable[..., Any]
    called: bool = True


class Stateful(ABC):
    """A value of ours whose contents a pickle gives after making it."""

    @abstractmethod
    def take_state(self, state: Any) -> None:
        """Keep what is data in the state."""


class Attributes(dict[str, Any], Stateful):
    """The attributes of an object whose class is never imported, as a dict."""

    def take_state(self, state: Any) -> None:
        """Take over an object's ``__dict__``."""
        self.update(state)

    @staticmethod
    def are(state: Any) -> bool:
        """Whether a state is a ``__dict__``, and nothing that only ``__setstate__`` understands."""
        return isinstance(state, dict) and all(isinstance(key, str) for key in state)


class Vocabulary(Protocol):
    """What names and persistent ids of a pickle stand for."""

    def resolve(self, name: str) -> object:
        """The value behind `module.name`, or a WeightsError."""

    def persistent(self, key: object) -> object:
        """The value behind a persistent id, or a WeightsError."""


def refuse_object(file: object, what: str) -> NoReturn:
    """Refuse a file that holds more than data.

    Raises
    ------
    WeightsError
        Always.
    """
    raise WeightsError(
        f"{file}: holds {what} besides tensors and plain values, which could run code",
        remedy=_RESAVE,
    )


def read_pickle(stream: io.BytesIO, vocabulary: Vocabulary, *, file: object) -> object:
    """Carry out one pickle and leave the stream behind its end.

    Parameters
    ----------
    stream : io.BytesIO
        In memory, so that no length it declares can ask for more than is there.
    vocabulary : Vocabulary
        Decides about names.
    file : object
        Named in errors.

    Returns
    -------
    object
        None, bool, int, float, complex, str, bytes, tuple, list, dict, set, and what the
        vocabulary gives.

    Raises
    ------
    WeightsError
        When a name is refused, the program is broken, or it is longer than 2,000,000 operations.
    """
    machine = _Machine(vocabulary, file)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPERATIONS:
                raise WeightsError(
                    f"{file}: more than {MAX_OPERATIONS} operations to describe its content",
                    remedy="save the network's tensors alone, without the training state.",
                )
            if opcode.name != "STOP":
                machine.step(opcode.name, argument)
        return machine.stack.pop()
    except WeightsError:
        raise
    except Exception as error:  # every kind is possible with hostile bytes
        why = str(error).splitlines()[:1] or [type(error).__name__]
        raise WeightsError(f"{file}: truncated or damaged ({why[0]})", remedy=AGAIN) from error


def plain_keys(keys: Sequence[Any]) -> Sequence[Any]:
    """The same, if all are values without depth or flat tuples of them.

    A tuple that holds itself twice over, sixty times nested, takes for ever to be hashed.
    """
    for key in keys:
        inner = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, (str, bytes, int, float, NoneType)) for part in inner):
            raise ValueError(f"a {type(key).__name__} as a key")
    return keys


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, vocabulary: Vocabulary, file: object) -> None:
        self.vocabulary = vocabulary
        self.file = file
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def step(self, name: str, argument: Any) -> None:
        """Carry out one operation."""
        if name in _PUSHES:
            self.stack.append(argument)
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            what = f"the object {argument}" if argument else "an object"
            refuse_object(self.file, f"{what} (pickle operation {name})")

    def push(self, value: object) -> None:
        """Put a value on top."""
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """What was pushed after the last mark."""
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def push_tuple(self, count: int) -> None:
        """Replace the last values by a tuple of them."""
        if len(self.stack) < count:
            raise ValueError("a tuple of more values than there are")
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def name(self, name: object) -> None:
        """Push what a global name stands for."""
        if not isinstance(name, str):
            refuse_object(self.file, f"an object named by a {type(name).__name__}")
        self.stack.append(self.vocabulary.resolve(name))

    def construct(self, arguments: Any, constructor: object) -> None:
        """What takes the place of a call."""
        if not isinstance(constructor, Constructor) or not isinstance(arguments, tuple):
            refuse_object(self.file, f"a call of a {type(constructor).__name__}")
        if not constructor.called:
            refuse_object(self.file, f"a call of {constructor.name}")
        self.count(*arguments)
        self.stack.append(constructor.make(*arguments))

    def new_object(self, arguments: Any, constructor: object) -> None:
        """What takes the place of a class's __new__."""
        if not isinstance(constructor, Constructor) or constructor.called:
            self.construct(arguments, constructor)
        elif arguments != ():
            refuse_object(self.file, f"an object of {constructor.name} made from arguments")
        else:
            self.stack.append(constructor.make())

    def set_state(self, state: Any) -> None:
        """What takes the place of an object's __setstate__ or __dict__."""
        target = self.stack[-1]
        self.count(state)
        if isinstance(target, Attributes) and not Attributes.are(state):
            refuse_object(self.file, "an object whose state is no table of attributes")
        if isinstance(target, Stateful):
            target.take_state(state)
        elif type(target) is not dict or not isinstance(state, dict):
            # The state of an ordered dict holds a module's version numbers, which nobody needs.
            refuse_object(self.file, f"state for a {type(target).__name__}")

    def count(self, *copied: object) -> None:
        """Count what is about to be copied."""
        self.copied += sum(len(value) for value in copied if isinstance(value, Sized))
        if self.copied > MAX_COPIED:
            raise ValueError(f"more than {MAX_COPIED} values made from others")

    def fill(self, items: list[Any]) -> None:
        """Append to the list, add to the set or set in the dict on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(plain_keys(items))
        elif isinstance(target, dict) and len(items) % 2 == 0:
            target.update(zip(plain_keys(items[::2]), items[1::2], strict=True))
        else:
            raise ValueError(f"items for a {type(target).__name__}")


def _mark(machine: _Machine, _: Any) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.since_mark()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.since_mark()


def _dict(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.push({})
    machine.fill(items)


def _global(machine: _Machine, argument: str) -> None:
    machine.name(argument.replace(" ", "."))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(f"{module}.{name}" if isinstance(module, str) else module)


def _persistent(machine: _Machine, _: Any) -> None:
    machine.push(machine.vocabulary.persistent(machine.stack.pop()))


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.fill([key, value])


def _memoise(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _call(machine: _Machine, _: Any) -> None:
    machine.construct(machine.stack.pop(), machine.stack.pop())


def _new(machine: _Machine, _: Any) -> None:
    machine.new_object(machine.stack.pop(), machine.stack.pop())


_PUSHES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"}
)
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
# Left out on purpose, and so refused: INST, OBJ and NEWOBJ_EX, which make objects; EXT1 to EXT4,
# which look names up in a registry of the process; PERSID, and the out-of-band buffers.
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push_tuple(0),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "APPEND": lambda machine, _: machine.fill([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.fill(machine.since_mark()),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "ADDITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push(frozenset(plain_keys(machine.since_mark()))),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "MEMOIZE": _memoise,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": _persistent,
    "REDUCE": _call,
    "NEWOBJ": _new,
    "BUILD": lambda machine, _: machine.set_state(machine.stack.pop()),
}
