from __future__ import annotations

import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from einthoven.errors import WeightsError
from einthoven.weights.safe import read_checkpoint

TENSORS = {"a": torch.arange(1000.0), "b": torch.ones(3, 2)}


def _save(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def test_reads_containers_of_both_formats(tmp_path: Path) -> None:
    content = {"epoch": 3, "model": TENSORS, "optimizer": None, "config": {"model": {"n": [1.5]}}}
    read = read_checkpoint(_save(tmp_path / "x.pth", content))
    assert (read["epoch"], read["config"]) == (3, {"model": {"n": [1.5]}})
    assert torch.equal(read["model"]["a"], TENSORS["a"])
    old = read_checkpoint(
        _save(tmp_path / "old.pth", content, _use_new_zipfile_serialization=False)
    )
    assert torch.equal(old["model"]["b"], TENSORS["b"])
    save_file(TENSORS, tmp_path / "named_wrongly.pth")
    assert torch.equal(read_checkpoint(tmp_path / "named_wrongly.pth")["b"], TENSORS["b"])


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
def test_never_runs_what_a_pickle_asks_for(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "was-run"
    path = _save(
        tmp_path / "x.pth",
        {"model": TENSORS, "config": _Evil(marker)},
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(WeightsError, match=r"besides tensors[\s\S]*do not open it") as refusal:
        read_checkpoint(path)
    assert not marker.exists()
    assert "weights_only" not in str(refusal.value)  # PyTorch's own advice is to switch it off


@pytest.mark.parametrize("keep", [0, 7, 200, 2000, -30])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_refuses_truncated_files(tmp_path: Path, kind: str, keep: int) -> None:
    path = tmp_path / "x"
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        _save(path, {"model": TENSORS}, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError):
        read_checkpoint(path)


def test_refuses_a_flipped_bit_in_a_weight(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.pth", {"model": TENSORS})
    content = bytearray(path.read_bytes())
    content[content.find(TENSORS["a"][500:510].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    # PyTorch itself does not notice, which is why the checksum is verified here.
    assert not torch.equal(torch.load(path, weights_only=True)["model"]["a"], TENSORS["a"])
    with pytest.raises(WeightsError, match=r"checksum of .*data/0 does not match"):
        read_checkpoint(path)


def test_refuses_a_flipped_bit_in_the_header_of_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x")
    content = bytearray((tmp_path / "x").read_bytes())
    content[5] ^= 1  # the length of the header grows by a terabyte
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged safetensors"):
        read_checkpoint(tmp_path / "x")


def test_refuses_an_archive_that_would_unpack_to_more(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    with pytest.raises(WeightsError, match="declares 10000000 bytes"):
        read_checkpoint(tmp_path / "bomb.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "neither a safetensors nor"),
        (b"", "neither a safetensors nor"),
        (pickle.dumps([1, 2]), "besides|truncated|holds a"),
    ],
)
def test_refuses_what_is_no_checkpoint(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        read_checkpoint(tmp_path / "x.pth")


def test_refuses_lists_absent_files_folders_and_giants(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds a list"):
        read_checkpoint(_save(tmp_path / "list.pth", [1, 2]))
    with pytest.raises(WeightsError, match="holds a dict"):
        read_checkpoint(_save(tmp_path / "empty.pth", {}))
    with pytest.raises(WeightsError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="no such file"):
        read_checkpoint(tmp_path)
    with pytest.raises(WeightsError, match="more than the limit of 100"):
        read_checkpoint(_save(tmp_path / "x.pth", TENSORS), max_bytes=100)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's list of open files")
@pytest.mark.parametrize("content", [TENSORS, [1, 2]])
def test_leaves_no_file_open(tmp_path: Path, content: object) -> None:
    path = _save(tmp_path / "x.pth", content)
    with suppress(WeightsError):
        read_checkpoint(path)
    opened = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    assert path not in [link.resolve() for link in opened if link.is_symlink()]
