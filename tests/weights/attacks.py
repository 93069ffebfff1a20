"""Hostile checkpoints, assembled byte by byte.

Every payload, if it were carried out, would leave a trace: a file named `trace` in the current
folder, or the module `canary` imported from there, which writes that file as well.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

CANARY = "open('trace', 'w').close()\nclass TrapConfig(dict): pass\n"
SHELL = "touch trace"
PYTHON = "open('trace', 'w')"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def glob(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def stack_glob(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(name: str | bytes, *arguments: bytes) -> bytes:
    function = name if isinstance(name, bytes) else glob(name)
    return function + b"(" + b"".join(arguments) + b"tR"


def new(name: str) -> bytes:
    """An object made from nothing, as a pickle has it before its state."""
    return glob(name) + b")\x81"


def tensor(storage_id: bytes, shape: bytes = b"K\x01\x85", stride: bytes = b"K\x01\x85") -> bytes:
    about = storage_id + b"QK\x00" + shape + stride + b"\x89" + call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", about)


def storage(key: bytes, count: bytes = b"K\x01", kind: str = "torch.FloatStorage") -> bytes:
    return b"(" + text("storage") + glob(kind) + key + text("cpu") + count + b"t"


def bytes_of(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def doubling(times: int) -> bytes:
    """A tuple that holds the last one twice, again and again: 2**times leaves."""
    return b"K\x01" + b"2\x86" * times


_IMPORT_OS = call("builtins.__import__", text("os"))
_EVIL = b"\x80\x02" + call("os.system", text(SHELL)) + b"."

# One expression each: what would stand as a value somewhere in a checkpoint.
PAYLOADS: dict[str, bytes] = {
    "os.system": call("os.system", text(SHELL)),
    "posix.system": call("posix.system", text(SHELL)),
    "nt.system": call("nt.system", text(SHELL)),
    "eval": call("builtins.eval", text(PYTHON)),
    "eval of Python 2": call("__builtin__.eval", text(PYTHON)),
    "exec": call("builtins.exec", text(PYTHON)),
    "open": call("builtins.open", text("trace"), text("w")),
    "io.open": call("_io.open", text("trace"), text("w")),
    "Path.touch": call("pathlib.Path.touch", call("pathlib.PosixPath", text("trace"))),
    "subprocess": call("subprocess.call", text("touch"), text("trace")),
    "Popen, new object": glob("subprocess.Popen") + text(SHELL) + b"\x85\x81",
    "Popen, new object with keywords": (
        glob("subprocess.Popen") + text(SHELL) + b"\x85}" + text("shell") + b"\x88s\x92"
    ),
    "inst": b"(" + text(SHELL) + b"ios\nsystem\n",
    "obj": b"(" + glob("os.system") + text(SHELL) + b"o",
    "stack global": call(stack_glob("os", "system"), text(SHELL)),
    "dotted stack global": call(stack_glob("torch", "serialization.os.system"), text(SHELL)),
    "getattr chain": call(call("builtins.getattr", _IMPORT_OS, text("system")), text(SHELL)),
    "attrgetter": call(call("operator.attrgetter", text("system")), _IMPORT_OS),
    "methodcaller": call(call("operator.methodcaller", text("system"), text(SHELL)), _IMPORT_OS),
    "partial": call(call("functools.partial", glob("os.system"), text(SHELL))),
    "map": call("builtins.list", call("builtins.map", glob("os.system"), text(SHELL))),
    "__import__": call("builtins.__import__", text("canary")),
    "import_module": call("importlib.import_module", text("canary")),
    "a name alone imports": glob("canary.anything"),
    "a name alone": glob("os.system"),
    "runpy": call("runpy.run_path", text("canary.py")),
    "pickle.loads": call("pickle.loads", bytes_of(_EVIL)),
    "marshal": call("marshal.loads", bytes_of(b"N")),
    "timeit": call("timeit.timeit", text(PYTHON)),
    "code": call("code.interact"),
    "ctypes": call("ctypes.CDLL", text("libc.so.6")),
    "codecs.decode": call("_codecs.decode", bytes_of(b"x"), text("zip")),
    "codecs.encode to another": call("_codecs.encode", text("x"), text("rot13")),
    "torch.load": call("torch.load", text("inner.pt")),
    "torch.serialization.load": call("torch.serialization.load", text("inner.pt")),
    "torch.hub.load": call("torch.hub.load", text("."), text("canary")),
    "torch.jit.load": call("torch.jit.load", text("inner.pt")),
    "torch imports by name": call("torch._utils._import_dotted_name", text("canary")),
    "torch storage from bytes": call("torch.storage._load_from_bytes", bytes_of(_EVIL)),
    "torch ops": call("torch.ops.load_library", text("canary.so")),
    "torch.save": call("torch.save", b"N", text("trace")),
    "torch.from_file": call("torch.from_file", text("trace"), b"\x88", b"K\x08"),
    "storage from file": call("torch.UntypedStorage.from_file", text("trace"), b"\x88", b"K\x08"),
    "shared memory": call(
        "torch.multiprocessing.reductions.rebuild_storage_filename", text("trace")
    ),
    "rebuild from type": call(
        "torch._tensor._rebuild_from_type_v2", glob("os.system"), b"N", text(SHELL), b"N"
    ),
    "numpy.memmap": call("numpy.memmap", text("trace"), text("f4"), text("w+"), b"K\x00", b"K\x08"),
    "numpy.load": call("numpy.load", text("inner.npy"), b"N", b"\x88"),
    "numpy object array": call("numpy.core.multiarray._reconstruct", glob("numpy.ndarray")),
    "numpy object scalar": call(
        "numpy.core.multiarray.scalar", call("numpy.dtype", text("O8")), bytes_of(bytes(8))
    ),
    "mmap": call("mmap.mmap", b"J\xff\xff\xff\xff", b"K\x08"),
    "FileType": call(call("argparse.FileType", text("w")), text("trace")),
    "Namespace with arguments": call("argparse.Namespace", call("os.system", text(SHELL))),
    "state for a Namespace": (
        call("argparse.Namespace") + b"}" + text("a") + call("os.system", text(SHELL)) + b"sb"
    ),
    "config class with a __reduce__": call("canary.TrapConfig", text("trace")),
    "config class called without arguments": call("canary.TrapConfig"),
    "config class made from arguments": (
        glob("canary.TrapConfig") + call("os.system", text(SHELL)) + b"\x85\x81"
    ),
    "config object made from plain arguments": (
        glob("canary.TrapConfig") + text("trace") + b"\x85\x81"
    ),
    "config object for __setstate__": new("canary.TrapConfig") + text("trace") + b"b",
    "config object with slots": new("canary.TrapConfig") + b"N}" + text("a") + b"Ns\x86b",
    "config object whose state calls": (
        new("canary.TrapConfig") + b"}" + text("a") + call("os.system", text(SHELL)) + b"sb"
    ),
    "config object with keywords": (glob("canary.TrapConfig") + b")}" + text("a") + b"Ns\x92"),
    "a builtin called a config": new("builtins.TrapConfig"),
    "a builtin of Python 2 called a config": new("__builtin__.TrapConfig"),
    "a config of the standard library": new("os.TrapConfig"),
    "a config of PyTorch": new("torch.serialization.TrapConfig"),
    "a config with a path in its name": new("canary.sub/TrapConfig"),
    "a config class alone": glob("canary.TrapConfig"),
    "state for a constructor": glob("collections.OrderedDict") + b"}" + text("make") + b"Nsb",
    "state for a tensor": (
        tensor(storage(text("0"))) + b"}" + text("__class__") + glob("os.system") + b"sb"
    ),
    "call of a plain value": text("os.system") + text(SHELL) + b"\x85R",
    "ordered dict of a call": call("collections.OrderedDict", call("os.system", text(SHELL))),
    "defaultdict": call("collections.defaultdict", glob("os.system")),
    "extension registry": b"\x82\xf0" + text(SHELL) + b"\x85R",
    "textual persistent id": b"Pstorage\n",
    "persistent id that calls": b"(" + text("storage") + call("os.system", text(SHELL)) + b"tQ",
    "persistent module": (
        b"(" + text("module") + glob("torch.nn.Linear") + text("canary.py") + text(CANARY) + b"tQ"
    ),
    "persistent path out of the archive": tensor(storage(text("../../canary.py"))),
    "persistent absolute path": tensor(storage(text("/etc/hostname"))),
    "persistent id that is a number": tensor(storage(b"K\x00")),
    "persistent id without an end": doubling(64) + b"Q",
    "storage of objects": tensor(storage(text("0"), kind="torch.ObjectStorage")),
    "out-of-band buffer": b"\x97",
    "device without an end": call("torch.device", doubling(64)),
}

# These promise more than there is, or would take for ever; nothing is run by them.
BOMBS: dict[str, bytes] = {
    "a huge storage": tensor(storage(text("0"), count=b"\x8a\x06" + bytes(5) + b"\x10")),
    "a negative storage": tensor(storage(text("0"), count=b"J\xff\xff\xff\xff")),
    "a huge tensor from one value": tensor(
        storage(text("0")), shape=b"J\x00\x00\x00\x40\x85", stride=b"K\x00\x85"
    ),
    "a tensor beyond its storage": tensor(storage(text("0")), shape=b"K\x02\x85"),
    "a tensor of 2**80 values": tensor(
        storage(text("0")), shape=b"\x8a\x0b" + bytes(10) + b"\x01\x85", stride=b"K\x00\x85"
    ),
    "an empty tensor of absurd shape": tensor(
        storage(text("0")),
        shape=b"K\x00\x8a\x0b" + bytes(10) + b"\x01\x86",
        stride=b"K\x01\x8a\x0b" + bytes(10) + b"\x01\x86",
    ),
    "sizes of a million digits": tensor(
        storage(text("0")),
        shape=b"(" + (b"\x8b" + struct.pack("<I", 400_000) + bytes(399_999) + b"\x01") * 8 + b"t",
        stride=b"(" + b"K\x01" * 8 + b"t",
    ),
    "negative stride": tensor(storage(text("0")), stride=b"J\xff\xff\xff\xff\x85"),
    "a storage of two sizes": (
        tensor(storage(text("0"))) + b"0" + tensor(storage(text("0"), count=b"K\x02"))
    ),
    "an endless key": b"}" + doubling(64) + b"Ns",
    "an endless member": b"\x8f(" + doubling(64) + b"\x90",
    "a list copied over and over": (
        b"](" + b"K\x01" * 50_000 + b"eq\x05" + (glob("torch.Size") + b"h\x05\x85R") * 400
    ),
    "a huge text": b"X\xff\xff\xff\x7f",
    "huge bytes": b"\x8e" + bytes(5) + b"\x10\x00\x00",
    "a huge number": b"\x8b\xff\xff\xff\x7f",
    "an endless decimal": b"L" + b"9" * 5000 + b"L\n",
    "depth": b"]" * 5000 + b"a" * 4999,
    "stack underflow": b"aaaa",
    "a mark without an end": b"((((",
    "an absent memo": b"jxxxx",
    "an unknown operation": b"\xff",
}


def _wrapped(payload: bytes) -> bytes:
    """A checkpoint whose entry `model` is the payload, beside a plain one."""
    return b"\x80\x02}(" + text("epoch") + b"K\x01" + text("model") + payload + b"u."


def archive(payload: bytes, path: Path) -> Path:
    """As `torch.save` writes it, with one storage of one number."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", _wrapped(payload))
        file.writestr("archive/byteorder", b"little")
        file.writestr("archive/data/0", bytes(4))
        file.writestr("archive/version", b"3\n")
    return path


def legacy(payload: bytes, path: Path) -> Path:
    """As PyTorch before 1.6 wrote it."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 1) + bytes(4)
    path.write_bytes(b"".join(head) + _wrapped(payload) + tail)
    return path


def bare(payload: bytes, path: Path) -> Path:
    """A plain pickle."""
    path.write_bytes(_wrapped(payload))
    return path


def in_the_first_pickle(payload: bytes, path: Path) -> Path:
    """In place of the number that a PyTorch file begins with."""
    path.write_bytes(b"\x80\x02" + payload + b"." + _wrapped(b"N"))
    return path


def npy(payload: bytes, path: Path) -> Path:
    """An array of objects."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with path.open("ab") as file:
        file.write(b"\x80\x02" + payload + b".")
    return path


def npz(payload: bytes, path: Path) -> Path:
    """An archive of it."""
    inner = npy(payload, path.with_suffix(".npy")).read_bytes()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model.npy", inner)
    return path


CONTAINERS: dict[str, tuple[Callable[[bytes, Path], Path], str]] = {
    "archive": (archive, "x.pt"),
    "archive called checkpoint": (archive, "x.ckpt"),
    "archive called safetensors": (archive, "x.safetensors"),
    "before the archives": (legacy, "x.pth"),
    "before the archives, called safetensors": (legacy, "model.safetensors"),
    "plain pickle": (bare, "x.pkl"),
    "first pickle": (in_the_first_pickle, "x.bin"),
    "npy": (npy, "x.npy"),
    "npz": (npz, "x.npz"),
}


def text_protocol(path: Path) -> Path:
    """A pickle of protocol 0, which does not look like one."""
    path.write_bytes(b"cos\nsystem\n(S'" + SHELL.encode() + b"'\ntR.")
    return path


def archive_of(members: dict[str, bytes], *, compressed: bool = False) -> bytes:
    """A zip archive with these members."""
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()
