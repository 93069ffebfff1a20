"""Checkpoints are read as data: objects that could execute code are refused."""

from __future__ import annotations

import argparse
import ast
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import einthoven
from einthoven.errors import WeightsError
from einthoven.weights.safe import read_checkpoint, read_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(file: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(file)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("archive", [True, False])
def test_every_format_gives_the_same_tensors(archive: bool, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    torch.save(
        {"model": STATE, "args": argparse.Namespace(lr=1.0)} if archive else {"model": STATE},
        tmp_path / "x.pt",
        _use_new_zipfile_serialization=archive,
    )
    for file in (tmp_path / "x.safetensors", tmp_path / "x.pt"):
        state = read_state(file)
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state[key], STATE[key].to(state[key].dtype)) for key in STATE)


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Any], None]:
    """Write a checkpoint with an object of the class `trap.XConfig` that has a given state."""

    def write(file: Path, state: Any) -> None:
        kind = type("XConfig", (), {"__module__": "trap", "__reduce__": lambda self: reduced})
        reduced = (kind, (1, "argument"), state)
        with monkeypatch.context() as patch:
            module = ModuleType("trap")
            module.XConfig = kind  # type: ignore[attr-defined]
            patch.setitem(sys.modules, "trap", module)
            torch.save({"model": STATE, "cfg": kind()}, file)

    return write


def test_configuration_objects_become_dictionaries_of_attributes(
    trap: Callable[[Path, Any], None], tmp_path: Path
) -> None:
    trap(tmp_path / "x.pt", {"lr": 0.1})
    content = read_checkpoint(tmp_path / "x.pt")
    assert torch.equal(content["model"]["a.weight"], STATE["a.weight"])
    assert content["cfg"].attributes == {"lr": 0.1}


# Eight attacks.


@pytest.mark.parametrize("archive", [True, False])
def test_a_reduce_payload_is_not_called(archive: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    payload = {"model": STATE, "extra": Payload(exec, f"open({str(trace)!r}, 'w').close()")}
    torch.save(payload, tmp_path / "x.pt", _use_new_zipfile_serialization=archive)
    refused(tmp_path / "x.pt")
    assert not trace.exists()


def test_the_traps_would_work_elsewhere(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Payload(exec, f"open({str(trace)!r}, 'w').close()")))
    assert trace.exists()


def test_the_module_of_a_configuration_is_not_imported(
    trap: Callable[[Path, Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass XConfig: pass\n")
    trap(tmp_path / "x.pt", {})
    read_checkpoint(tmp_path / "x.pt")
    assert not trace.exists()
    assert "trap" not in sys.modules


def test_the_state_of_a_configuration_replaces_no_method(
    trap: Callable[[Path, Any], None], tmp_path: Path
) -> None:
    hostile = {"__class__": "c", "__setstate__": "s", "__reduce__": "r", "attributes": "a"}
    trap(tmp_path / "x.pt", hostile)
    stand_in = read_checkpoint(tmp_path / "x.pt")["cfg"]
    assert stand_in.attributes == hostile
    assert not hasattr(stand_in, "__dict__")
    assert callable(stand_in.__setstate__)
    for state in ((None, {"__class__": "c"}), [1], "text"):
        trap(tmp_path / "y.pt", state)
        refused(tmp_path / "y.pt")


def test_whole_models_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    refused(tmp_path / "x.pt")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        archive.writestr("x/constants.pkl", pickle.dumps(()))
    assert "TorchScript" in refused(tmp_path / "x.pt").problem


@pytest.mark.parametrize("keep", [0, 7, 100, -30])
@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
def test_truncated_files_are_refused(kind: str, keep: int, tmp_path: Path) -> None:
    file = tmp_path / "x"
    if kind == "safetensors":
        save_file(STATE, file)
    else:
        torch.save(STATE, file, _use_new_zipfile_serialization=kind == "archive")
    file.write_bytes(file.read_bytes()[:keep])
    refused(file)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"<!DOCTYPE html><html></html>",
        b"\n<html>",
        b"nothing like it",
    ],
)
def test_files_that_are_not_checkpoints_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    refused(tmp_path / "x.pt")
    refused(tmp_path / "absent.pt")
    refused(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([value])}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r": a .*NaN"):
        read_state(tmp_path / "x.pt")


def test_the_package_never_unpickles_or_evaluates() -> None:
    root = Path(einthoven.__file__).parent
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                names.append(getattr(node, "module", None) or "")
                assert not {"pickle", "dill", "cloudpickle", "marshal"} & set(names), file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), (file, node.lineno)
