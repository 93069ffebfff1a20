"""Our reader of PyTorch's files against PyTorch itself, and against damage."""

from __future__ import annotations

import argparse
import io
import random
import struct
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from einthoven.errors import WeightsError
from einthoven.weights import pickle_reader
from einthoven.weights.safe import read_checkpoint

LAYOUTS = [True, False]
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def _save(path: Path, content: object, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs)


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_tensors_of_every_type_and_layout(tmp_path: Path, zipped: bool) -> None:
    base = torch.randn(5, 6)
    content = {str(dtype): (base * 3).to(dtype) for dtype in DTYPES} | {
        "transposed": base.t(),
        "a column": base[:, 2],
        "every other": base[::2, 1::3],
        "empty": torch.zeros(0, 3),
        "a number": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(base, requires_grad=False),
        "buffer of integers": torch.arange(3),
    }
    path = _save(tmp_path / "x", content, zipped)
    ours, theirs = read_checkpoint(path), torch.load(path, weights_only=True)
    assert ours.keys() == theirs.keys()
    assert all(_same(ours[key], theirs[key]) for key in theirs)
    assert type(ours["parameter"]) is Tensor


def test_types_without_a_storage_class_of_their_own(tmp_path: Path) -> None:
    content = {"u": torch.arange(4).to(torch.uint16), "f": torch.ones(3).to(torch.float8_e5m2)}
    ours = read_checkpoint(_save(tmp_path / "x", content))
    assert _same(ours["u"], content["u"])
    assert ours["f"].dtype is torch.float8_e5m2
    assert ours["f"].float().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_plain_values_of_every_kind(tmp_path: Path, zipped: bool) -> None:
    plain = {
        "none": None, "yes": True, "no": False, "int": -3, "long": 2**70, "float": 1.5e-300,
        "complex": 1 + 2j, "text": "Ä\n", "bytes": b"\x00\xff", "tuple": (1, (2, 3), ()),
        "list": [1, [2]], "set": {1, 2}, "dict": {1: {"a": None}}, ("a", 2): "tuple as a key",
    }  # fmt: skip
    content = plain | {
        "ordered": OrderedDict(a=1, b=2),
        "size": torch.Size([1, 2]),
        "device": torch.device("cuda:1"),
        "dtype": torch.float32,
        "numpy": (np.float64(0.25), np.int64(7), np.float32(0.5), np.bool_(True)),
        "module": torch.nn.Linear(1, 1).state_dict(),
    }
    read = read_checkpoint(_save(tmp_path / "x", content, zipped))
    assert {key: read[key] for key in plain} == plain
    assert (read["ordered"], read["size"], read["device"]) == ({"a": 1, "b": 2}, (1, 2), "cuda:1")
    assert (read["dtype"], read["numpy"]) == (torch.float32, (0.25, 7, 0.5, True))
    assert all(type(value) in (float, int, bool) for value in read["numpy"])
    assert set(read["module"]) == {"weight", "bias"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle(tmp_path: Path, protocol: int) -> None:
    content = {"a": torch.ones(2), "b": [b"x", {3}, frozenset({4}), "y" * 300, -1.5, bytearray(2)]}
    path = tmp_path / "x"
    torch.save(content, path, pickle_protocol=protocol)
    read = read_checkpoint(path)
    assert read["b"] == content["b"]
    assert torch.equal(read["a"], content["a"])


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_a_namespace_is_read_as_its_attributes(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = argparse.Namespace(arch="wav2vec2", lr=[5e-5], nested=argparse.Namespace(a=1))
    path = _save(tmp_path / "x", {"args": args, "model": {"w": torch.ones(2)}}, zipped)
    # The class itself is neither made nor given a state, whatever it does.
    monkeypatch.setattr(argparse.Namespace, "__init__", None)
    monkeypatch.setattr(argparse, "Namespace", None)
    read = read_checkpoint(path)
    assert read["args"] == {"arch": "wav2vec2", "lr": [5e-5], "nested": {"a": 1}}


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_a_config_object_of_others_is_read_as_its_attributes(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("their_configuration")
    made = type("TheirConfig", (), {"__module__": module.__name__, "model_type": "theirs"})
    module.TheirConfig = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = made()
    config.__dict__ |= {"sizes": [512, (1, 2)], "nested": made(), "dtype": torch.float32}
    content = {"model_config": config, "model_state_dict": {"w": torch.ones(2)}}
    path = _save(tmp_path / "x", content, zipped)
    monkeypatch.delitem(sys.modules, module.__name__)
    read = read_checkpoint(path)
    # Attributes of the class are in no file.
    assert read["model_config"] == {"sizes": [512, (1, 2)], "nested": {}, "dtype": torch.float32}
    assert read_checkpoint(path, parts=("model_state_dict",)).keys() == {"model_state_dict"}


@pytest.mark.parametrize("special", ["__reduce__", "__getstate__"])
def test_a_config_object_that_asks_for_more_is_refused(
    tmp_path: Path, special: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its class would do on loading, __init__ with arguments or __setstate__, is not done."""
    module = ModuleType("their_package")
    answers = {"__reduce__": lambda self: (made, ("x",)), "__getstate__": lambda self: ("x",)}
    made = type("TheirConfig", (), {"__module__": "their_package", special: answers[special]})
    module.TheirConfig = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_package", module)
    path = _save(tmp_path / "x", {"model_config": made(), "w": torch.ones(2)})
    said = r"a call of their_package\.TheirConfig|an object whose state is no table of attributes"
    with pytest.raises(WeightsError, match=f"({said}) besides tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_shared_tensors_stay_shared_and_cycles_end(tmp_path: Path, zipped: bool) -> None:
    weight = torch.ones(4)
    content: dict[str, Any] = {"a": weight, "b": weight, "half": weight[:2], "list": [weight]}
    content["itself"] = content["list"]
    content["list"].append(content["list"])
    read = read_checkpoint(_save(tmp_path / "x", content, zipped))
    read["a"][0] = 7.0
    assert read["b"][0] == read["half"][0] == read["list"][0][0] == 7.0
    assert read["itself"][1] is read["list"]


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_only_wanted_parts_are_read(tmp_path: Path, zipped: bool) -> None:
    """An optimiser's state is twice the size of its model, and nobody's business."""
    moments = {str(i): torch.ones(250_000) for i in range(8)}
    content = {"optimizer": moments, "model": {"w": torch.full((250_000,), 2.0)}, "epoch": 3}
    path = _save(tmp_path / "x", content, zipped)
    raw = bytearray(path.read_bytes())
    raw[raw.find(struct.pack("<f", 1.0) * 8) + 2] ^= 1  # damage where nobody looks
    path.write_bytes(raw)
    read = read_checkpoint(path, parts=("model", "state_dict"))
    assert read.keys() == {"model"}
    assert read["model"]["w"].sum() == 500_000
    assert read_checkpoint(_save(path, content["model"], zipped), parts=("model",)).keys() == {"w"}


def test_memory_is_that_of_the_wanted_tensors(tmp_path: Path) -> None:
    content = {"other": {"o": torch.ones(10_000_000)}, "model": {"w": torch.ones(10)}}
    for zipped in LAYOUTS:
        path = _save(tmp_path / "x", content, zipped)
        tracemalloc.start()
        read_checkpoint(path, parts=("model",))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Before the archives, the description can be told from what follows only by reading it.
        assert peak < (2e6 if zipped else 34e6)


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_every_truncation_is_noticed(tmp_path: Path, zipped: bool) -> None:
    whole = _save(tmp_path / "x", {"model": {"w": torch.arange(9.0)}}, zipped).read_bytes()
    path = tmp_path / "short"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError) as refusal:
            read_checkpoint(path)
        assert str(path) in refusal.value.problem
        assert refusal.value.remedy


def test_every_flipped_bit_of_an_archive_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Names, sizes, descriptions and weights are all under a checksum or compared."""
    weight = torch.arange(9.0)
    whole = _save(tmp_path / "x", {"model": {"w": weight}}).read_bytes()
    path, noticed = tmp_path / "flipped", 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            read = read_checkpoint(path)
        except WeightsError:
            noticed += 1
        else:
            assert torch.equal(read["model"]["w"], weight), place
    assert noticed > len(whole) // 3


def _mutations(pickle: bytes, count: int) -> list[bytes]:
    rng = random.Random(0)
    made = []
    for _ in range(count):
        changed = bytearray(pickle)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(changed))
            match rng.randrange(3):
                case 0:
                    changed[place] = rng.randrange(256)
                case 1:
                    del changed[place]
                case _:
                    changed[place:place] = rng.choice(
                        [b"(", b"t", b"R", b"b", b"Q", b"0", b"h\x05"]
                    )
        made.append(bytes(changed))
    return made


def test_nonsense_under_valid_checksums_is_refused_cleanly(tmp_path: Path) -> None:
    """800 mutated descriptions: each is read as something or refused, and nothing else."""
    content = {"model": torch.nn.Linear(2, 3).state_dict(), "args": argparse.Namespace(a=[1])}
    with zipfile.ZipFile(_save(tmp_path / "x", content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = next(name for name in members if name.endswith("data.pkl"))
    path, refused = tmp_path / "mutated", 0
    for mutated in _mutations(members[description], 800):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, raw in (members | {description: mutated}).items():
                archive.writestr(name, raw)
        path.write_bytes(out.getvalue())
        try:
            assert isinstance(read_checkpoint(path), dict)
        except WeightsError:
            refused += 1
    assert 400 < refused < 800


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    raw = _save(tmp_path / "x", {"w": torch.ones(1)}).read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "big", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, b"big" if name.endswith("byteorder") else content)
    with pytest.raises(WeightsError, match="most significant byte first"):
        read_checkpoint(tmp_path / "big")


def test_operations_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_reader, "MAX_OPERATIONS", 3000)
    with pytest.raises(WeightsError, match="more than 3000 operations"):
        read_checkpoint(_save(tmp_path / "x", {"rows": list(range(3000))}))


def test_nesting_is_limited(tmp_path: Path) -> None:
    deep: Any = torch.ones(1)
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(WeightsError, match="nested more than 32 levels"):
        read_checkpoint(_save(tmp_path / "x", deep))
